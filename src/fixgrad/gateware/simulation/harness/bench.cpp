// The test bench: clock, parts and memory around one chip, and the C functions that Python calls.
#include <sys/mman.h>

#include <memory>

#include "axi_lite.h"
#include "axi_memory.h"
#include "model.h"
#include "stream.h"

namespace fixgrad {

class Bench {
public:
    Bench() : model_(make_model()), pins_(model_->ports()), clock_(pins_.need("aclk")), reset_n_(pins_.need("aresetn")) {
        clock_.set(0);
        reset_n_.set(0);
        model_->eval();
    }
    ~Bench() {
        if (image.bytes) munmap(image.bytes, image.size);
    }

    const Pins &pins() const { return pins_; }
    Model &model() { return *model_; }
    uint64_t cycle() const { return cycle_; }

    void allocate(uint64_t size) {
        // Pages come into being when they are touched, so the board's whole capacity costs nothing.
        void *bytes = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (bytes == MAP_FAILED) throw std::runtime_error("cannot reserve " + std::to_string(size) + " bytes of memory");
        if (image.bytes) munmap(image.bytes, image.size);
        image.bytes = static_cast<uint8_t *>(bytes);
        image.size = size;
    }
    template <class T, class... Args> T *add(Args &&...args) {
        auto part = std::make_unique<T>(std::forward<Args>(args)...);
        T *raw = part.get();
        parts_.push_back(std::move(part));
        return raw;
    }
    void reset(uint32_t cycles) {
        reset_n_.set(0);
        for (uint32_t i = 0; i < cycles; ++i) edge();
        reset_n_.set(1);
    }
    void step() {
        for (auto &part : parts_) part->drive(cycle_);
        clock_.set(0);
        model_->eval();
        if (tracing_) model_->trace(2 * cycle_);
        for (auto &part : parts_) part->observe(cycle_);
        clock_.set(1);
        model_->eval();
        if (tracing_) {
            model_->settle();
            model_->trace(2 * cycle_ + 1);
        }
        ++cycle_;
    }
    // Lets logic settle after an input was set by hand.
    void settle() {
        clock_.set(0);
        model_->eval();
    }
    void trace(const char *path) {
        if (tracing_) model_->close_trace();
        tracing_ = path != nullptr;
        if (path) model_->open_trace(path);
    }
    MemoryImage image;
    std::vector<AxiMemory *> memories;
    std::vector<AxiLite *> lites;
    std::vector<Source *> sources;
    std::vector<Sink *> sinks;
    std::string violation;

private:
    void edge() {
        clock_.set(0);
        model_->eval();
        clock_.set(1);
        model_->eval();
    }
    std::unique_ptr<Model> model_;
    Pins pins_;
    Pin clock_, reset_n_;
    std::vector<std::unique_ptr<Part>> parts_;
    uint64_t cycle_ = 0;
    bool tracing_ = false;
};

}  // namespace fixgrad

using namespace fixgrad;

namespace {

std::string problem;  // of the last call that failed

template <class F> int guarded(F &&call) {
    try {
        call();
        return 0;
    } catch (const std::exception &e) {
        problem = e.what();
        return -1;
    }
}

std::vector<std::string> split(const char *names) {
    std::vector<std::string> found;
    std::string name;
    for (const char *c = names; *c; ++c) {
        if (*c != ' ') {
            name += *c;
        } else if (!name.empty()) {
            found.push_back(std::move(name));
            name.clear();
        }
    }
    if (!name.empty()) found.push_back(name);
    return found;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API const char *bench_problem() { return problem.c_str(); }
API Bench *bench_new() {
    Bench *bench = nullptr;
    guarded([&] { bench = new Bench(); });
    return bench;
}
API void bench_delete(Bench *b) { delete b; }
API uint64_t bench_cycle(Bench *b) { return b->cycle(); }
API int bench_reset(Bench *b, uint32_t cycles) {
    return guarded([&] { b->reset(cycles); });
}
API int bench_trace(Bench *b, const char *path) {
    return guarded([&] { b->trace(path); });
}
API int bench_allocate(Bench *b, uint64_t size, uint8_t **bytes) {
    return guarded([&] {
        b->allocate(size);
        *bytes = b->image.bytes;
    });
}
API void bench_fault(Bench *b, uint64_t first, uint64_t limit, uint32_t response) { b->image.faults.push_back({first, limit, response}); }
API void bench_clear_faults(Bench *b) { b->image.faults.clear(); }
API void bench_writable(Bench *b, uint64_t first, uint64_t limit) { b->image.writable.push_back({first, limit}); }
API int bench_add_memory(Bench *b, const char *prefix, uint32_t channel, uint32_t channels, uint64_t interleave, const uint32_t *timing,
                         uint64_t seed, const uint32_t *hostility) {
    return guarded([&] {
        const DramTiming t{timing[0], timing[1], timing[2], timing[3], timing[4], timing[5]};
        const Hostility h{seed, hostility[0], hostility[1], hostility[2] != 0};
        b->memories.push_back(b->add<AxiMemory>(b->pins(), prefix, b->image, channel, channels, interleave, t, h));
    });
}
API void bench_memory_counts(Bench *b, uint32_t index, uint64_t *counts) {
    const auto &c = b->memories.at(index)->counts;
    const uint64_t all[6] = {c.read_bursts, c.read_beats, c.write_bursts, c.write_beats, c.most_reads, c.most_writes};
    std::memcpy(counts, all, sizeof all);
}
API void bench_freeze(Bench *b, uint32_t index, uint32_t frozen) { b->memories.at(index)->frozen = frozen != 0; }
API int bench_quiet(Bench *b) {
    for (AxiMemory *memory : b->memories)
        if (!memory->quiet()) return 0;
    return 1;
}
API int bench_add_lite(Bench *b, const char *prefix, uint64_t seed, uint32_t per_mille, uint32_t longest) {
    return guarded([&] { b->lites.push_back(b->add<AxiLite>(b->pins(), prefix, seed, per_mille, longest)); });
}
// Index of the new source or sink, or -1. `fields`: names of the payload's ports, separated by spaces.
API int bench_add_source(Bench *b, const char *prefix, const char *fields, uint64_t seed, uint32_t per_mille, uint32_t longest) {
    const int failed = guarded([&] { b->sources.push_back(b->add<Source>(b->pins(), prefix, split(fields), Stall(seed, per_mille, longest))); });
    return failed ? -1 : int(b->sources.size()) - 1;
}
API int bench_add_sink(Bench *b, const char *prefix, const char *fields, uint64_t seed, uint32_t per_mille, uint32_t longest) {
    const int failed = guarded([&] { b->sinks.push_back(b->add<Sink>(b->pins(), prefix, split(fields), Stall(seed, per_mille, longest))); });
    return failed ? -1 : int(b->sinks.size()) - 1;
}
API void bench_push(Bench *b, uint32_t source, const uint8_t *records, uint64_t count) { b->sources.at(source)->push(records, count); }
API uint64_t bench_waiting(Bench *b, uint32_t source) { return b->sources.at(source)->waiting(); }
API uint64_t bench_taken(Bench *b, uint32_t sink) { return b->sinks.at(sink)->count(); }
API void bench_pop(Bench *b, uint32_t sink, uint8_t *records, uint64_t *cycles) {
    Sink &s = *b->sinks.at(sink);
    std::memcpy(records, s.records().data(), s.records().size());
    std::memcpy(cycles, s.cycles().data(), s.cycles().size() * sizeof(uint64_t));
    s.clear();
}
API int bench_set(Bench *b, const char *port, const uint8_t *bytes, uint64_t count) {
    return guarded([&] {
        b->pins().need(port).set_bytes(bytes, count);
        b->settle();
    });
}
API int bench_get(Bench *b, const char *port, uint8_t *bytes, uint64_t count) {
    return guarded([&] {
        b->model().settle();
        b->pins().need(port).get_bytes(bytes, count);
    });
}
API void bench_step(Bench *b, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) b->step();
}
// Steps until the port has the value: 1, or until the limit: 0.
API int bench_run_until(Bench *b, const char *port, uint64_t value, uint64_t limit) {
    int reached = 0;
    const int failed = guarded([&] {
        const Pin pin = b->pins().need(port);
        for (uint64_t i = 0; i < limit && !reached; ++i) {
            b->step();
            reached = pin.get() == value;
        }
    });
    return failed ? -1 : reached;
}
// Steps until the sink has taken so many payloads: 1, or until the limit: 0.
API int bench_run_until_taken(Bench *b, uint32_t sink, uint64_t count, uint64_t limit) {
    const Sink &s = *b->sinks.at(sink);
    for (uint64_t i = 0; i < limit && s.count() < count; ++i) b->step();
    return s.count() >= count;
}
// 0 and the response, or -1: no answer within the limit.
API int bench_register_write(Bench *b, uint32_t lite, uint32_t address, uint32_t data, uint32_t strobes, uint64_t limit, uint32_t *response) {
    AxiLite &bus = *b->lites.at(lite);
    bus.start_write(address, data, strobes);
    for (uint64_t i = 0; i < limit && !bus.done(); ++i) b->step();
    const bool done = bus.done();
    if (!done) bus.forget();
    *response = bus.response();
    return done ? 0 : -1;
}
API int bench_register_read(Bench *b, uint32_t lite, uint32_t address, uint64_t limit, uint32_t *data, uint32_t *response) {
    AxiLite &bus = *b->lites.at(lite);
    bus.start_read(address);
    for (uint64_t i = 0; i < limit && !bus.done(); ++i) b->step();
    const bool done = bus.done();
    if (!done) bus.forget();
    *data = bus.data();
    *response = bus.response();
    return done ? 0 : -1;
}
// The first rule that the chip broke, or an empty text.
API const char *bench_violation(Bench *b) {
    for (AxiMemory *memory : b->memories)
        if (!memory->violation().empty()) return b->violation = memory->violation(), b->violation.c_str();
    for (Sink *sink : b->sinks)
        if (!sink->violation().empty()) return b->violation = sink->violation(), b->violation.c_str();
    return "";
}
