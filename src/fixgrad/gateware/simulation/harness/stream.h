// Ends of streams: a source pushes payloads into the chip, a sink takes them out and notes when.
#pragma once
#include <deque>

#include "model.h"

namespace fixgrad {

// The payload's ports in their order, each as whole bytes in a record.
class Payload {
public:
    Payload(const Pins &pins, const std::string &prefix, const std::vector<std::string> &fields) {
        for (const std::string &field : fields) {
            const PortRef *ref = pins.find(prefix + "_" + field);
            if (!ref) throw std::runtime_error("the chip has no port " + prefix + "_" + field);
            fields_.push_back({Pin(*ref), size_of(ref->bits)});
            record_bytes_ += fields_.back().bytes;
        }
    }
    // 1, 2, 4, 8 or a multiple of 4: what NumPy has a type for, or an array of bytes.
    static size_t size_of(uint32_t bits) {
        if (bits <= 8) return 1;
        if (bits <= 16) return 2;
        if (bits <= 32) return 4;
        if (bits <= 64) return 8;
        return 4 * ((bits + 31) / 32);
    }
    size_t record_bytes() const { return record_bytes_; }
    void set(const uint8_t *record) {
        for (Field &field : fields_) {
            field.pin.set_bytes(record, field.bytes);
            record += field.bytes;
        }
    }
    void get(uint8_t *record) const {
        for (const Field &field : fields_) {
            field.pin.get_bytes(record, field.bytes);
            record += field.bytes;
        }
    }

private:
    struct Field {
        Pin pin;
        size_t bytes;
    };
    std::vector<Field> fields_;
    size_t record_bytes_ = 0;
};

class Source : public Part {
public:
    Source(const Pins &pins, const std::string &prefix, const std::vector<std::string> &fields, Stall stall)
        : valid_(pins.need(prefix + "_valid")), ready_(pins.need(prefix + "_ready")), payload_(pins, prefix, fields), stall_(stall) {}
    void push(const uint8_t *records, size_t count) {
        queue_.insert(queue_.end(), records, records + count * payload_.record_bytes());
    }
    size_t waiting() const { return queue_.size() / payload_.record_bytes() + (offered_ ? 1 : 0); }
    size_t record_bytes() const { return payload_.record_bytes(); }
    void drive(uint64_t) override {
        if (!offered_ && !queue_.empty() && !stall_.now()) {
            std::vector<uint8_t> record(queue_.begin(), queue_.begin() + long(payload_.record_bytes()));
            queue_.erase(queue_.begin(), queue_.begin() + long(payload_.record_bytes()));
            payload_.set(record.data());
            offered_ = true;
        }
        valid_.set(offered_);
    }
    void observe(uint64_t) override {
        if (offered_ && ready_.get()) offered_ = false;
    }

private:
    Pin valid_, ready_;
    Payload payload_;
    Stall stall_;
    std::deque<uint8_t> queue_;
    bool offered_ = false;
};

class Sink : public Part {
public:
    Sink(const Pins &pins, const std::string &prefix, const std::vector<std::string> &fields, Stall stall)
        : name_(prefix), valid_(pins.need(prefix + "_valid")), ready_(pins.need(prefix + "_ready")), payload_(pins, prefix, fields),
          stall_(stall), record_(payload_.record_bytes()), before_(payload_.record_bytes()) {}
    size_t record_bytes() const { return payload_.record_bytes(); }
    size_t count() const { return cycles_.size(); }
    const std::vector<uint8_t> &records() const { return records_; }
    const std::vector<uint64_t> &cycles() const { return cycles_; }
    void clear() {
        records_.clear();
        cycles_.clear();
    }
    const std::string &violation() const { return violation_; }
    void drive(uint64_t) override {
        is_ready_ = !stall_.now();
        ready_.set(is_ready_);
    }
    void observe(uint64_t cycle) override {
        const bool valid = valid_.get();
        if (valid) payload_.get(record_.data());
        if (was_waiting_ && violation_.empty() && (!valid || record_ != before_))
            violation_ = name_ + ": payload withdrawn or changed before it was accepted, cycle " + std::to_string(cycle);
        was_waiting_ = valid && !is_ready_;
        before_ = record_;
        if (!valid || !is_ready_) return;
        records_.insert(records_.end(), record_.begin(), record_.end());
        cycles_.push_back(cycle);
    }

private:
    std::string name_;
    Pin valid_, ready_;
    Payload payload_;
    Stall stall_;
    std::vector<uint8_t> records_, record_, before_;
    std::vector<uint64_t> cycles_;
    std::string violation_;
    bool is_ready_ = false, was_waiting_ = false;
};

}  // namespace fixgrad
