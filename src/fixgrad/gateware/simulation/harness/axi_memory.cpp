#include "axi_memory.h"

#include <algorithm>

namespace fixgrad {

namespace {

constexpr uint64_t kBoundary = 4096;     // IHI 0022, A3.4.1: no burst crosses it
constexpr size_t kOutstanding = 64;      // bursts of each direction that the controller holds
constexpr size_t kWriteBeats = 256;      // beats of write data that it holds
constexpr uint64_t kPatience = 64;       // cycles that a waiting direction lets the other one keep the bus

Stall make_stall(const Hostility &h, uint64_t which) { return Stall(h.seed * 8 + which, h.per_mille, h.longest); }

}  // namespace

AxiMemory::AddressPins::AddressPins(const Pins &pins, const std::string &prefix)
    : valid(pins.need(prefix + "valid")), ready(pins.need(prefix + "ready")), id(pins(prefix + "id")),
      addr(pins.need(prefix + "addr")), len(pins.need(prefix + "len")), size(pins.need(prefix + "size")),
      burst(pins.need(prefix + "burst")) {}

AxiMemory::AxiMemory(const Pins &pins, const std::string &prefix, MemoryImage &image, uint32_t channel, uint32_t channels,
                     uint64_t interleave, const DramTiming &timing, const Hostility &hostility)
    : image_(image), name_(prefix), channel_(channel), channels_(channels), interleave_(interleave), timing_(timing),
      hostility_(hostility), random_(hostility.seed), stall_ar_(make_stall(hostility, 1)), stall_r_(make_stall(hostility, 2)),
      stall_aw_(make_stall(hostility, 3)), stall_w_(make_stall(hostility, 4)), stall_b_(make_stall(hostility, 5)),
      ar_(pins, prefix + "_ar"), aw_(pins, prefix + "_aw"), wvalid_(pins.need(prefix + "_wvalid")),
      wready_(pins.need(prefix + "_wready")), wdata_(pins.need(prefix + "_wdata")), wstrb_(pins.need(prefix + "_wstrb")),
      wlast_(pins.need(prefix + "_wlast")), bvalid_(pins.need(prefix + "_bvalid")), bready_(pins.need(prefix + "_bready")),
      bid_(pins(prefix + "_bid")), bresp_(pins.need(prefix + "_bresp")), rvalid_(pins.need(prefix + "_rvalid")),
      rready_(pins.need(prefix + "_rready")), rid_(pins(prefix + "_rid")), rdata_(pins.need(prefix + "_rdata")),
      rresp_(pins.need(prefix + "_rresp")), rlast_(pins.need(prefix + "_rlast")), data_bytes_(rdata_.bits() / 8) {}

uint64_t AxiMemory::global(uint64_t address) const {
    return (address / interleave_ * channels_ + channel_) * interleave_ + address % interleave_;
}

// The response to a beat at this address of the whole memory.
uint32_t AxiMemory::fault(uint64_t address) const {
    if (address + data_bytes_ > image_.size) return 3;
    for (const MemoryImage::Fault &f : image_.faults)
        if (address < f.limit && address + data_bytes_ > f.first) return f.response;
    return 0;
}

void AxiMemory::complain(const std::string &what) {
    if (violation_.empty()) violation_ = name_ + ": " + what + ", cycle " + std::to_string(cycle_);
}

void AxiMemory::watch(Watch &watch, bool valid, bool ready, std::vector<uint8_t> payload, const char *name) {
    if (watch.waiting && !valid) complain(std::string(name) + "valid withdrawn before it was accepted");
    if (watch.waiting && valid && payload != watch.payload) complain(std::string(name) + " changed before it was accepted");
    watch.waiting = valid && !ready;
    watch.payload = std::move(payload);
}

void AxiMemory::drive(uint64_t cycle) {
    cycle_ = cycle;
    serve();
    arready_ = !frozen && reads_.size() < kOutstanding && !stall_ar_.now();
    // A slave may wait for the data before it takes the address (A3.3.1): a master that waits for the address first hangs.
    const bool insists_on_data = hostility_.reorder && random_.below(4) != 0;
    awready_ = !frozen && writes_.size() < kOutstanding && !stall_aw_.now() && (!insists_on_data || !beats_.empty());
    wready_now_ = !frozen && beats_.size() < kWriteBeats && !stall_w_.now();
    ar_.ready.set(arready_);
    aw_.ready.set(awready_);
    wready_.set(wready_now_);
    if (offered_read_ < 0 && !frozen && !stall_r_.now()) offer_read();
    rvalid_.set(offered_read_ >= 0);
    if (offered_response_ < 0 && !frozen && !stall_b_.now()) offer_response();
    bvalid_.set(offered_response_ >= 0);
}

// Index of the burst to answer next. Bursts of one identifier are answered in order (A5.3).
int AxiMemory::choose(const std::deque<Burst> &bursts, bool is_write) {
    std::vector<int> found;
    uint64_t seen = 0;
    for (size_t i = 0; i < bursts.size(); ++i) {
        const Burst &b = bursts[i];
        const bool is_oldest = !(seen >> (b.id & 63) & 1);
        seen |= uint64_t(1) << (b.id & 63);
        const bool can = is_write ? b.complete : b.delivered < b.served;
        if (is_oldest && can && b.ready_at <= cycle_) found.push_back(int(i));
        if (!hostility_.reorder) break;
    }
    return found.empty() ? -1 : found[random_.below(uint32_t(found.size()))];
}

void AxiMemory::offer_read() {
    if (reads_.empty() || (offered_read_ = choose(reads_, false)) < 0) return;
    Burst &burst = reads_[size_t(offered_read_)];
    const uint64_t address = global((burst.address + uint64_t(burst.delivered) * data_bytes_) & ~uint64_t(data_bytes_ - 1));
    const uint32_t response = fault(address);
    rid_.set(burst.id);
    rresp_.set(response);
    rlast_.set(burst.delivered + 1 == burst.beats);
    if (response) {
        const std::vector<uint8_t> garbage(data_bytes_, 0xEE);
        rdata_.set_bytes(garbage.data(), data_bytes_);
    } else {
        rdata_.set_bytes(image_.bytes + address, data_bytes_);
    }
}

void AxiMemory::offer_response() {
    if (writes_.empty() || (offered_response_ = choose(writes_, true)) < 0) return;
    bid_.set(writes_[size_t(offered_response_)].id);
    bresp_.set(writes_[size_t(offered_response_)].response);
}

bool AxiMemory::read_waits() const {
    return std::any_of(reads_.begin(), reads_.end(), [&](const Burst &b) { return b.served < b.beats && b.ready_at <= cycle_; });
}

bool AxiMemory::write_waits() const {
    return !beats_.empty() && std::any_of(writes_.begin(), writes_.end(), [](const Burst &b) { return b.served < b.beats; });
}

// Moves beats over the DRAM's data bus: one direction at a time, as long as that one has work and the other is patient.
void AxiMemory::serve() {
    if (!timing_.bytes_per_kilocycle) {
        while (read_waits()) serve_read();
        while (write_waits()) serve_write();
        return;
    }
    if (timing_.refresh_interval && cycle_ % timing_.refresh_interval < timing_.refresh_cycles) return;
    if (cycle_ < busy_until_) return;
    tokens_ = std::min<uint64_t>(tokens_ + timing_.bytes_per_kilocycle, 2000ull * data_bytes_);
    while (tokens_ >= 1000ull * data_bytes_) {
        const bool can_read = read_waits(), can_write = write_waits();
        if (!can_read && !can_write) return;
        const bool keeps = bus_writes_ ? can_write : can_read;
        const bool changes = !keeps || (can_read && can_write && cycle_ >= busy_until_ + kPatience);
        if (changes) {
            bus_writes_ = !bus_writes_;
            busy_until_ = cycle_ + timing_.turnaround;
            if (timing_.turnaround) return;
        }
        bus_writes_ ? serve_write() : serve_read();
        tokens_ -= 1000ull * data_bytes_;
    }
}

void AxiMemory::serve_read() {
    for (Burst &burst : reads_) {
        if (burst.served == burst.beats || burst.ready_at > cycle_) continue;
        ++burst.served;
        return;
    }
}

void AxiMemory::serve_write() {
    for (Burst &burst : writes_) {
        if (burst.served == burst.beats) continue;
        store(burst, beats_.front());
        const uint64_t address = global((burst.address + uint64_t(burst.served) * data_bytes_) & ~uint64_t(data_bytes_ - 1));
        burst.response = std::max(burst.response, fault(address));
        if (++burst.served == burst.beats) {
            burst.complete = true;
            burst.ready_at = cycle_ + timing_.write_latency;
        }
        if (beats_.front().last != (burst.served == burst.beats)) complain("wlast is not at the burst's last beat");
        beats_.pop_front();
        return;
    }
}

void AxiMemory::store(const Burst &burst, const WriteBeat &beat) {
    const uint64_t first = (burst.address + uint64_t(burst.served) * data_bytes_) & ~uint64_t(data_bytes_ - 1);
    const uint64_t address = global(first);
    const bool is_bad = fault(address) != 0;
    for (uint32_t i = 0; i < data_bytes_; ++i) {
        if (!(beat.strobes[i / 64] >> (i % 64) & 1)) continue;
        // Lanes below an unaligned start carry nothing (A3.4.3).
        if (burst.served == 0 && first + i < burst.address) complain("strobe below the burst's first byte");
        const bool is_allowed = image_.writable.empty() ||
                                std::any_of(image_.writable.begin(), image_.writable.end(),
                                            [&](const auto &range) { return range.first <= address + i && address + i < range.second; });
        if (!is_allowed) complain("writes byte " + std::to_string(address + i) + " outside of its memory");
        if (!is_bad && is_allowed) image_.bytes[address + i] = beat.data[i];
    }
}

void AxiMemory::take_address(AddressPins &pins, bool ready, std::deque<Burst> &bursts, const char *name, Watch &seen) {
    const bool valid = pins.valid.get();
    if (!valid && !seen.waiting) return;
    const uint64_t fields[5] = {pins.id.get(), pins.addr.get(), pins.len.get(), pins.size.get(), pins.burst.get()};
    const auto *raw = reinterpret_cast<const uint8_t *>(fields);
    watch(seen, valid, ready, std::vector<uint8_t>(raw, raw + sizeof fields), name);
    if (!valid || !ready) return;
    const uint64_t beats = fields[2] + 1, first = fields[1] & ~uint64_t(data_bytes_ - 1);
    if ((uint64_t(1) << fields[3]) != data_bytes_) complain(std::string(name) + "size is not the port's width");
    if (fields[4] != 1) complain(std::string(name) + "burst is not INCR");
    if (first / kBoundary != (first + beats * data_bytes_ - 1) / kBoundary) complain(std::string(name) + " crosses 4 KB");
    bursts.push_back({uint32_t(fields[0]), fields[1], uint32_t(beats), 0, 0, cycle_ + timing_.read_latency, 0, false});
}

void AxiMemory::take_beat() {
    const bool valid = wvalid_.get();
    if (!valid && !watch_w_.waiting) return;
    WriteBeat beat{std::vector<uint8_t>(data_bytes_), {0, 0}, wlast_.get() != 0};
    if (valid) {
        wdata_.get_bytes(beat.data.data(), data_bytes_);
        wstrb_.get_bytes(beat.strobes, sizeof beat.strobes);
    }
    std::vector<uint8_t> payload = beat.data;
    payload.insert(payload.end(), reinterpret_cast<uint8_t *>(beat.strobes), reinterpret_cast<uint8_t *>(beat.strobes) + 16);
    payload.push_back(beat.last);
    watch(watch_w_, valid, wready_now_, std::move(payload), "w");
    if (!valid || !wready_now_) return;
    beats_.push_back(std::move(beat));
    ++counts.write_beats;
}

void AxiMemory::observe(uint64_t) {
    const size_t reads = reads_.size(), writes = writes_.size();
    if (offered_read_ >= 0 && rready_.get()) {
        Burst &burst = reads_[size_t(offered_read_)];
        ++counts.read_beats;
        if (++burst.delivered == burst.beats) reads_.erase(reads_.begin() + offered_read_);
        offered_read_ = -1;
    }
    if (offered_response_ >= 0 && bready_.get()) {
        writes_.erase(writes_.begin() + offered_response_);
        offered_response_ = -1;
    }
    const size_t kept_reads = reads_.size(), kept_writes = writes_.size();
    take_address(ar_, arready_, reads_, "ar", watch_ar_);
    take_address(aw_, awready_, writes_, "aw", watch_aw_);
    take_beat();
    counts.read_bursts += reads_.size() - kept_reads;
    counts.write_bursts += writes_.size() - kept_writes;
    counts.most_reads = std::max<uint64_t>(counts.most_reads, std::max(reads, reads_.size()));
    counts.most_writes = std::max<uint64_t>(counts.most_writes, std::max(writes, writes_.size()));
}

}  // namespace fixgrad
