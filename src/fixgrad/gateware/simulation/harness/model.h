// A simulated chip seen through its flat ports, whichever simulator made it.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace fixgrad {

// Storage of a port inside the simulated chip: little-endian words, of 32 bits where it is wider than 64.
struct PortRef {
    const char *name;
    void *data;
    uint32_t bits;
    uint32_t bytes;  // of its storage; multiple of the word
    bool is_input;
};

class Model {
public:
    virtual ~Model() = default;
    virtual std::vector<PortRef> ports() = 0;
    virtual void eval() = 0;  // settles combinational logic, and registers where the clock has risen
    virtual void settle() {}    // after a rising edge: brings the ports up to date where `eval` left that for later
    virtual void open_trace(const std::string &) { throw std::runtime_error("this build writes no waveform: build with trace"); }
    virtual void trace(uint64_t) {}
    virtual void close_trace() {}
};

Model *make_model();  // of the generated part

// A port, or nothing where the chip does not have it: an absent input ignores, an absent output reads 0.
class Pin {
public:
    Pin() = default;
    explicit Pin(const PortRef &ref) : data_(ref.data), bits_(ref.bits), bytes_(ref.bytes) {}
    bool exists() const { return data_ != nullptr; }
    uint32_t bits() const { return bits_; }
    uint64_t get() const {
        uint64_t value = 0;
        if (data_) std::memcpy(&value, data_, bytes_ < 8 ? bytes_ : 8);
        return value;
    }
    void set(uint64_t value) {
        if (!data_) return;
        if (bits_ < 64) value &= (uint64_t(1) << bits_) - 1;
        if (bytes_ <= 8) {
            std::memcpy(data_, &value, bytes_);
        } else {
            std::memset(data_, 0, bytes_);
            std::memcpy(data_, &value, 8);
        }
    }
    // Whole bytes, lowest first; `count` may be less or more than the port's storage.
    void get_bytes(void *to, size_t count) const {
        std::memset(to, 0, count);
        if (data_) std::memcpy(to, data_, count < bytes_ ? count : bytes_);
    }
    void set_bytes(const void *from, size_t count) {
        if (!data_) return;
        std::memset(data_, 0, bytes_);
        std::memcpy(data_, from, count < bytes_ ? count : bytes_);
        const uint32_t spare = bits_ % 8;  // a simulator expects zeros above the top bit
        if (spare && (bits_ + 7) / 8 <= bytes_) static_cast<uint8_t *>(data_)[bits_ / 8] &= uint8_t((1u << spare) - 1);
    }

private:
    void *data_ = nullptr;
    uint32_t bits_ = 0;
    uint32_t bytes_ = 0;
};

class Pins {
public:
    explicit Pins(const std::vector<PortRef> &refs) : refs_(refs) {}
    const PortRef *find(const std::string &name) const {
        for (const PortRef &ref : refs_)
            if (name == ref.name) return &ref;
        return nullptr;
    }
    Pin operator()(const std::string &name) const {
        const PortRef *ref = find(name);
        return ref ? Pin(*ref) : Pin();
    }
    Pin need(const std::string &name) const {
        const PortRef *ref = find(name);
        if (!ref) throw std::runtime_error("the chip has no port " + name);
        return Pin(*ref);
    }
    const std::vector<PortRef> &all() const { return refs_; }

private:
    std::vector<PortRef> refs_;
};

// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016).
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 2654435769u + 0x9E3779B97F4A7C15u) {}
    uint32_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return uint32_t((state_ * 0x2545F4914F6CDD1Du) >> 32);
    }
    uint32_t below(uint32_t bound) { return uint32_t((uint64_t(next()) * bound) >> 32); }

private:
    uint64_t state_;
};

// Decides, cycle by cycle, whether one side of a handshake holds back. Rests come in runs of random length, since single
// idle cycles alone never let a queue fill or empty.
class Stall {
public:
    Stall(uint64_t seed, uint32_t per_mille, uint32_t longest) : random_(seed), per_mille_(per_mille), longest_(longest) {}
    bool now() {
        if (!per_mille_) return false;
        if (rest_) return --rest_, true;
        if (random_.below(1000) >= per_mille_) return false;
        rest_ = random_.below(longest_ ? longest_ : 1);
        return true;
    }

private:
    Random random_;
    uint32_t per_mille_, longest_;
    uint32_t rest_ = 0;
};

// Part of the test bench. In each cycle `drive` sets the chip's inputs from what the part knows, then all combinational logic
// settles, then `observe` sees which handshakes complete at the coming clock edge.
class Part {
public:
    virtual ~Part() = default;
    virtual void drive(uint64_t cycle) = 0;
    virtual void observe(uint64_t cycle) = 0;
};

}  // namespace fixgrad
