// An AXI4-Lite master: one access at a time, with rests before each of its channels.
#pragma once
#include "model.h"

namespace fixgrad {

class AxiLite : public Part {
public:
    AxiLite(const Pins &pins, const std::string &prefix, uint64_t seed, uint32_t per_mille, uint32_t longest)
        : awvalid_(pins.need(prefix + "_awvalid")), awready_(pins.need(prefix + "_awready")), awaddr_(pins.need(prefix + "_awaddr")),
          wvalid_(pins.need(prefix + "_wvalid")), wready_(pins.need(prefix + "_wready")), wdata_(pins.need(prefix + "_wdata")),
          wstrb_(pins.need(prefix + "_wstrb")), bvalid_(pins.need(prefix + "_bvalid")), bready_(pins.need(prefix + "_bready")),
          bresp_(pins.need(prefix + "_bresp")), arvalid_(pins.need(prefix + "_arvalid")), arready_(pins.need(prefix + "_arready")),
          araddr_(pins.need(prefix + "_araddr")), rvalid_(pins.need(prefix + "_rvalid")), rready_(pins.need(prefix + "_rready")),
          rdata_(pins.need(prefix + "_rdata")), rresp_(pins.need(prefix + "_rresp")), stall_a_(seed * 8 + 1, per_mille, longest),
          stall_w_(seed * 8 + 2, per_mille, longest), stall_r_(seed * 8 + 3, per_mille, longest) {}

    void start_write(uint32_t address, uint32_t data, uint32_t strobes) {
        address_ = address, data_ = data, strobes_ = strobes;
        want_aw_ = want_w_ = want_b_ = true;
    }
    void start_read(uint32_t address) {
        address_ = address;
        want_ar_ = want_r_ = true;
    }
    bool done() const { return !want_b_ && !want_r_; }
    // Gives up an access that was never answered.
    void forget() { want_aw_ = want_w_ = want_b_ = want_ar_ = want_r_ = aw_ = w_ = ar_ = false; }
    uint32_t response() const { return response_; }
    uint32_t data() const { return data_; }

    void drive(uint64_t) override {
        aw_ = aw_ || (want_aw_ && !stall_a_.now());
        w_ = w_ || (want_w_ && !stall_w_.now());
        ar_ = ar_ || (want_ar_ && !stall_a_.now());
        takes_ = !stall_r_.now();
        awvalid_.set(aw_), awaddr_.set(address_);
        wvalid_.set(w_), wdata_.set(data_), wstrb_.set(strobes_);
        arvalid_.set(ar_), araddr_.set(address_);
        bready_.set(takes_ && want_b_), rready_.set(takes_ && want_r_);
    }
    void observe(uint64_t) override {
        if (aw_ && awready_.get()) aw_ = want_aw_ = false;
        if (w_ && wready_.get()) w_ = want_w_ = false;
        if (ar_ && arready_.get()) ar_ = want_ar_ = false;
        if (takes_ && want_b_ && bvalid_.get()) want_b_ = false, response_ = uint32_t(bresp_.get());
        if (takes_ && want_r_ && rvalid_.get()) want_r_ = false, response_ = uint32_t(rresp_.get()), data_ = uint32_t(rdata_.get());
    }

private:
    Pin awvalid_, awready_, awaddr_, wvalid_, wready_, wdata_, wstrb_, bvalid_, bready_, bresp_;
    Pin arvalid_, arready_, araddr_, rvalid_, rready_, rdata_, rresp_;
    Stall stall_a_, stall_w_, stall_r_;
    uint32_t address_ = 0, data_ = 0, strobes_ = 0, response_ = 0;
    bool want_aw_ = false, want_w_ = false, want_b_ = false, want_ar_ = false, want_r_ = false;
    bool aw_ = false, w_ = false, ar_ = false, takes_ = false;
};

}  // namespace fixgrad
