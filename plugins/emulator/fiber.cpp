#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <new>

#if defined(__x86_64__) && !defined(TDC_EMULATOR_UCONTEXT)
#define TDC_HAND_MADE_SWITCH 1
#else
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef TDC_HAND_MADE_SWITCH
// Keeps what a call must preserve (System V ABI) on the stack that is left, and nothing else: no
// signal mask, hence no system call, which makes it several times faster than swapcontext.
extern "C" void tdc_switch_stack(void** left, void* entered);
asm(R"(
    .text
    .type tdc_switch_stack, @function
tdc_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size tdc_switch_stack, . - tdc_switch_stack
)");
#endif

namespace tdc::emulator {
namespace {

constexpr std::size_t kGuardBytes = 4096;
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = 256 << 10;  // redzones round every local
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif

}  // namespace

struct Fiber::Context {
#ifdef TDC_HAND_MADE_SWITCH
    void* stack_pointer = nullptr;
#else
    ucontext_t registers{};
#endif
    void (*entry)() = nullptr;
    char* mapping = nullptr;  // a guard page, then the stack
    // For AddressSanitizer, which must know the stack in use. The scheduler's is learnt on leaving.
    const void* stack_bottom = nullptr;
    std::size_t stack_bytes = 0;
    void* fake_stack = nullptr;
};

Fiber::Context Fiber::scheduler_;
Fiber::Context* Fiber::resumed_ = nullptr;

// Where a fiber begins, on its own stack.
void Fiber::begin() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_.stack_bottom, &scheduler_.stack_bytes);
#endif
    resumed_->entry();
}

void Fiber::change(Context& from, Context& to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#ifdef TDC_HAND_MADE_SWITCH
    tdc_switch_stack(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.registers, &to.registers);
#endif
#ifdef __SANITIZE_ADDRESS__
    // Control always comes back from where it went.
    __sanitizer_finish_switch_fiber(from.fake_stack, &to.stack_bottom, &to.stack_bytes);
#endif
}

Fiber::Fiber(void (*entry)()) : context_(new Context) {
    void* mapping = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mprotect(mapping, kGuardBytes, PROT_NONE);
    context_->entry = entry;
    context_->mapping = static_cast<char*>(mapping);
    char* const stack = context_->mapping + kGuardBytes;
    context_->stack_bottom = stack;
    context_->stack_bytes = kStackBytes;
#ifdef TDC_HAND_MADE_SWITCH
    // What tdc_switch_stack pops: six registers, begin, and a null return address that ends
    // backtraces and aligns the stack as after a call.
    void** top = reinterpret_cast<void**>(stack + kStackBytes);
    top[-2] = reinterpret_cast<void*>(&Fiber::begin);
    context_->stack_pointer = top - 8;
#else
    getcontext(&context_->registers);
    context_->registers.uc_stack.ss_sp = stack;
    context_->registers.uc_stack.ss_size = kStackBytes;
    makecontext(&context_->registers, &Fiber::begin, 0);
#endif
}

Fiber::~Fiber() { munmap(context_->mapping, kGuardBytes + kStackBytes); }

void Fiber::resume() {
    resumed_ = context_.get();
    change(scheduler_, *context_);
}

void Fiber::suspend() { change(*context_, scheduler_); }

}  // namespace tdc::emulator
