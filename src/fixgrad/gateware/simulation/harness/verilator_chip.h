// A chip as Verilator made it. The build includes this after a list of its ports:
//   #define FIXGRAD_PORTS(PORT) PORT(name, bits, is_input) ...
#pragma once
#include <memory>

#include "Vtop.h"
#include "model.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

double sc_time_stamp() { return 0; }

namespace fixgrad {

class VerilatorChip final : public Model {
public:
    VerilatorChip() : context_(std::make_unique<VerilatedContext>()) {
#if VM_TRACE
        context_->traceEverOn(true);
#endif
        top_ = std::make_unique<Vtop>(context_.get());
    }
    std::vector<PortRef> ports() override {
#define FIXGRAD_REF(name, bits, is_input) {#name, &top_->name, bits, sizeof(top_->name), is_input},
        return {FIXGRAD_PORTS(FIXGRAD_REF)};
    }
    void eval() override { top_->eval(); }
#if VM_TRACE
    void open_trace(const std::string &path) override {
        vcd_ = std::make_unique<VerilatedVcdC>();
        top_->trace(vcd_.get(), 99);
        vcd_->open(path.c_str());
    }
    void trace(uint64_t time) override { vcd_->dump(time); }
    void close_trace() override {
        vcd_->close();
        vcd_.reset();
    }
#endif

private:
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif
};

Model *make_model() { return new VerilatorChip(); }

}  // namespace fixgrad
