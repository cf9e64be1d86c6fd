// A chip as Yosys made it (CXXRTL). The build includes the generated C++ and a list of its ports before this:
//   #define FIXGRAD_PORTS(PORT) PORT(name, mangled, bits, is_input) ...
#pragma once
#include "model.h"
#if VM_TRACE
#include <cxxrtl/cxxrtl_vcd.h>

#include <fstream>
#endif

namespace fixgrad {

class CxxrtlChip final : public Model {
public:
    std::vector<PortRef> ports() override {
#define FIXGRAD_REF(name, mangled, bits, is_input) {#name, data(top_.mangled), bits, 4 * ((bits + 31) / 32), is_input},
        return {FIXGRAD_PORTS(FIXGRAD_REF)};
    }
    void eval() override { top_.step(); }
#if VM_TRACE
    void open_trace(const std::string &path) override {
        file_.open(path);
        top_.debug_info(&items_, nullptr, {});
        vcd_.timescale(1, "ns");
        vcd_.add(items_);
    }
    void trace(uint64_t time) override {
        vcd_.sample(time);
        file_ << vcd_.buffer;
        vcd_.buffer.clear();
    }
    void close_trace() override { file_.close(); }
#endif

private:
    template <size_t N> static void *data(cxxrtl::value<N> &v) { return v.data; }
    template <size_t N> static void *data(cxxrtl::wire<N> &w) { return w.curr.data; }
    cxxrtl_design::p_top top_;
#if VM_TRACE
    cxxrtl::debug_items items_;
    cxxrtl::vcd_writer vcd_;
    std::ofstream file_;
#endif
};

Model *make_model() { return new CxxrtlChip(); }

}  // namespace fixgrad
