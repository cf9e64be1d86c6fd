// A memory behind an AXI4 port, with the timing of a DRAM channel and a checker of the protocol.
#pragma once
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "model.h"

namespace fixgrad {

// The bytes of all channels together, and the ranges that answer with an error.
struct MemoryImage {
    uint8_t *bytes = nullptr;
    uint64_t size = 0;
    struct Fault {
        uint64_t first, limit;  // of the whole memory's addresses
        uint32_t response;      // 2 SLVERR, 3 DECERR
    };
    std::vector<Fault> faults;
    // A byte written outside of these is a violation; empty: all are allowed.
    std::vector<std::pair<uint64_t, uint64_t>> writable;
};

// Timing of one channel, in cycles of the chip's clock. Reads and writes share the channel's data bus.
struct DramTiming {
    uint32_t read_latency = 0;         // from a burst's acceptance until its first beat
    uint32_t write_latency = 0;        // from a burst's last beat until its response
    uint32_t bytes_per_kilocycle = 0;  // of the data bus; 0: no limit
    uint32_t turnaround = 0;           // idle cycles when the bus changes its direction
    uint32_t refresh_interval = 0;     // cycles from one refresh to the next; 0: none
    uint32_t refresh_cycles = 0;       // that a refresh takes
};

// What makes a memory hostile: rests on every channel, and the freedom of order that AXI4 leaves.
struct Hostility {
    uint64_t seed = 0;
    uint32_t per_mille = 0;  // of the cycles in which a rest begins
    uint32_t longest = 0;    // cycles of a rest
    bool reorder = false;    // interleave read bursts of different identifiers, and let their responses overtake
};

class AxiMemory : public Part {
public:
    AxiMemory(const Pins &pins, const std::string &prefix, MemoryImage &image, uint32_t channel, uint32_t channels,
              uint64_t interleave, const DramTiming &timing, const Hostility &hostility);
    void drive(uint64_t cycle) override;
    void observe(uint64_t cycle) override;
    const std::string &violation() const { return violation_; }
    bool quiet() const { return reads_.empty() && writes_.empty() && beats_.empty(); }
    bool frozen = false;  // answers nothing any more

    struct Counts {
        uint64_t read_bursts = 0, read_beats = 0, write_bursts = 0, write_beats = 0, most_reads = 0, most_writes = 0;
    } counts;

private:
    struct AddressPins {
        Pin valid, ready, id, addr, len, size, burst;
        AddressPins(const Pins &pins, const std::string &prefix);
    };
    struct Burst {
        uint32_t id;
        uint64_t address;    // of the channel
        uint32_t beats;
        uint32_t served;     // beats that have crossed the DRAM's data bus
        uint32_t delivered;  // read: beats that the chip has taken
        uint64_t ready_at;
        uint32_t response;
        bool complete;  // write: may be answered
    };
    struct WriteBeat {
        std::vector<uint8_t> data;
        uint64_t strobes[2];
        bool last;
    };
    // A waiting payload, which may not change until it is accepted (IHI 0022, A3.2.1).
    struct Watch {
        bool waiting = false;
        std::vector<uint8_t> payload;
    };

    uint64_t global(uint64_t address) const;
    uint32_t fault(uint64_t address) const;
    void complain(const std::string &what);
    void watch(Watch &watch, bool valid, bool ready, std::vector<uint8_t> payload, const char *name);
    void take_address(AddressPins &pins, bool ready, std::deque<Burst> &bursts, const char *name, Watch &seen);
    void take_beat();
    int choose(const std::deque<Burst> &bursts, bool is_write);
    void offer_read();
    void offer_response();
    void serve();
    bool read_waits() const;
    bool write_waits() const;
    void serve_read();
    void serve_write();
    void store(const Burst &burst, const WriteBeat &beat);

    MemoryImage &image_;
    std::string name_;
    uint32_t channel_, channels_;
    uint64_t interleave_;
    DramTiming timing_;
    Hostility hostility_;
    Random random_;
    Stall stall_ar_, stall_r_, stall_aw_, stall_w_, stall_b_;
    AddressPins ar_, aw_;
    Pin wvalid_, wready_, wdata_, wstrb_, wlast_;
    Pin bvalid_, bready_, bid_, bresp_;
    Pin rvalid_, rready_, rid_, rdata_, rresp_, rlast_;
    uint32_t data_bytes_;
    std::deque<Burst> reads_, writes_;
    std::deque<WriteBeat> beats_;
    Watch watch_ar_, watch_aw_, watch_w_;
    bool arready_ = false, awready_ = false, wready_now_ = false;
    int offered_read_ = -1, offered_response_ = -1;
    uint64_t cycle_ = 0, tokens_ = 0, busy_until_ = 0;
    bool bus_writes_ = false;
    std::string violation_;
};

}  // namespace fixgrad
