// A chip of several models, each made by Verilator of a part of the design. The build includes this after the models and after
//   template <> std::vector<PortRef> ports_of(VMODEL &);  for each kind of part
//   std::unique_ptr<PartModel> make_part(uint32_t kind, VerilatedContext *, const char *name);
//   const Instance kInstances[];   the top first, parents before their children
//   const Link kLinks[];
#pragma once
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "model.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

double sc_time_stamp() { return 0; }

namespace fixgrad {

struct Instance {
    uint32_t kind, depth;
    const char *name;
};
// A port of a child is one of its parent; both are numbered as in `ports_of`.
struct Link {
    uint32_t parent, parent_port, child, child_port;
};

template <class V> std::vector<PortRef> ports_of(V &);

class PartModel {
public:
    virtual ~PartModel() = default;
    virtual std::vector<PortRef> ports() = 0;
    virtual void eval() = 0;
#if VM_TRACE
    virtual void trace(VerilatedVcdC *) = 0;
#endif
};

template <class V> class VerilatedPart final : public PartModel {
public:
    VerilatedPart(VerilatedContext *context, const char *name) : model_(std::make_unique<V>(context, name)) {}
    ~VerilatedPart() override { model_->final(); }
    std::vector<PortRef> ports() override { return ports_of(*model_); }
    void eval() override { model_->eval(); }
#if VM_TRACE
    void trace(VerilatedVcdC *file) override { model_->trace(file, 99); }
#endif

private:
    std::unique_ptr<V> model_;
};

extern const std::vector<Instance> kInstances;
extern const std::vector<Link> kLinks;
std::unique_ptr<PartModel> make_part(uint32_t kind, VerilatedContext *context, const char *name);

class Assembly final : public Model {
public:
    Assembly() : context_(std::make_unique<VerilatedContext>()) {
#if VM_TRACE
        context_->traceEverOn(true);
#endif
        for (const Instance &instance : kInstances) {
            Node node;
            node.model = make_part(instance.kind, context_.get(), instance.name);
            node.depth = instance.depth;
            node.refs = node.model->ports();
            for (const PortRef &ref : node.refs)
                if (!std::strcmp(ref.name, nodes_.empty() ? "aclk" : "clk")) node.clock = static_cast<uint8_t *>(ref.data);
            deepest_ = instance.depth > deepest_ ? instance.depth : deepest_;
            nodes_.push_back(std::move(node));
        }
        for (const Link &link : kLinks) {
            const PortRef &parent = nodes_[link.parent].refs[link.parent_port], &child = nodes_[link.child].refs[link.child_port];
            if (parent.bytes != child.bytes || parent.is_input == child.is_input)
                throw std::runtime_error(std::string("ports of a part do not fit: ") + parent.name + ", " + child.name);
            if (child.is_input)
                nodes_[link.parent].down.push_back({parent.data, child.data, child.bytes, link.child});
            else
                nodes_[link.child].up.push_back({child.data, parent.data, child.bytes, link.parent});
        }
    }
    std::vector<PortRef> ports() override { return nodes_[0].refs; }
    // At a rising edge every part takes the inputs that had settled before it; what follows from its new outputs reaches the
    // others when logic settles.
    void eval() override {
        const uint8_t clock = nodes_[0].clock ? *nodes_[0].clock : 0;
        if (clock && !clock_) {
            for (Node &node : nodes_) {
                if (node.clock) *node.clock = 1;
                node.model->eval();
                node.fresh = true;
            }
        } else {
            if (clock != clock_)
                for (Node &node : nodes_)
                    if (node.clock) *node.clock = clock;
            for (Node &node : nodes_) node.dirty = node.dirty || clock != clock_;
            nodes_[0].dirty = true;
        }
        clock_ = clock;
        if (!clock) settle();
    }
    void settle() override {
        uint32_t sweeps = 0;
        do {
            if (++sweeps > kSweeps) {
                std::fputs("the parts of the chip never settle: there is a combinational loop among them\n", stderr);
                std::abort();
            }
            for (uint32_t depth = deepest_; depth > 0; --depth) {
                carry(depth, &Node::up);
                if (depth > 1) eval_dirty(depth - 1);
            }
            eval_dirty(0);
            for (uint32_t depth = 0; depth < deepest_; ++depth) {
                carry(depth, &Node::down);
                eval_dirty(depth + 1);
            }
        } while (settling());
    }
#if VM_TRACE
    void open_trace(const std::string &path) override {
        vcd_ = std::make_unique<VerilatedVcdC>();
        for (Node &node : nodes_) node.model->trace(vcd_.get());
        vcd_->open(path.c_str());
    }
    void trace(uint64_t time) override { vcd_->dump(time); }
    void close_trace() override {
        vcd_->close();
        vcd_.reset();
    }
#endif

private:
    static constexpr uint32_t kSweeps = 1000;
    struct Wire {
        const void *from;
        void *to;
        uint32_t bytes, target;
    };
    struct Node {
        std::unique_ptr<PartModel> model;
        std::vector<PortRef> refs;
        std::vector<Wire> up, down;
        uint8_t *clock = nullptr;
        uint32_t depth = 0;
        bool dirty = false;  // inputs have changed since the last eval
        bool fresh = false;  // outputs may have changed since they were carried up
    };
    template <class T> static bool move(const Wire &wire) {
        T &to = *static_cast<T *>(wire.to);
        const T from = *static_cast<const T *>(wire.from);
        if (to == from) return false;
        to = from;
        return true;
    }
    static bool carry(const Wire &wire) {
        switch (wire.bytes) {
            case 1: return move<uint8_t>(wire);
            case 2: return move<uint16_t>(wire);
            case 4: return move<uint32_t>(wire);
            case 8: return move<uint64_t>(wire);
        }
        if (!std::memcmp(wire.to, wire.from, wire.bytes)) return false;
        std::memcpy(wire.to, wire.from, wire.bytes);
        return true;
    }
    void carry(uint32_t depth, std::vector<Wire> Node::*wires) {
        for (Node &node : nodes_) {
            if (node.depth != depth || !node.fresh) continue;
            for (const Wire &wire : node.*wires)
                if (carry(wire)) nodes_[wire.target].dirty = true;
        }
    }
    void eval_dirty(uint32_t depth) {
        for (Node &node : nodes_) {
            if (node.depth != depth || !node.dirty) continue;
            node.model->eval();
            node.dirty = false;
            node.fresh = true;
        }
    }
    // After a sweep up and down only the outputs of the parts evaluated on the way down may still be on their way.
    bool settling() {
        bool any = false;
        for (Node &node : nodes_) {
            if (!node.fresh) continue;
            for (const Wire &wire : node.up) any |= nodes_[wire.target].dirty |= carry(wire);
            node.fresh = false;
        }
        return any;
    }

    std::unique_ptr<VerilatedContext> context_;
    std::vector<Node> nodes_;
    uint32_t deepest_ = 0;
    uint8_t clock_ = 0;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif
};

Model *make_model() { return new Assembly(); }

}  // namespace fixgrad
