/* What ThreadSanitizer has to be told of a standard library that was not built for it.
 *
 * The standard library comes compiled. What of it is generic or inlined is compiled with our code, so the
 * sanitizer sees it: the fast paths of Mutex, RwLock, Once and scope, and all of Arc. What is not, it does
 * not see: the slow paths, and that a fence was one. Each function below stands before one of those
 * (the linker's --wrap), calls it, and tells the sanitizer the happens-before edge that its documentation
 * promises. Nothing is told that the library does not promise, and nothing about soloring's own code.
 *
 * The names of the wrapped functions are mangled with a hash of the library: sanitize.sh finds them and
 * gives them to the compiler (LOCK_CONTENDED and so on).
 */
#include <stddef.h>
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define WRAP(name) GLUE(__wrap_, name)
#define REAL(name) GLUE(__real_, name)

/* fn lock_contended(&self) of the futex Mutex: returns with the lock held. Its release is inlined: a swap of
 * the only word, at the address of the mutex. */
void REAL(LOCK_CONTENDED)(void *mutex);
void WRAP(LOCK_CONTENDED)(void *mutex) {
    REAL(LOCK_CONTENDED)(mutex);
    __tsan_acquire(mutex);
}

/* fn read_contended(&self), fn write_contended(&self) of the futex RwLock, the same. The word that the inlined
 * release changes is one of two of 32 bits. */
static void acquire_rwlock(char *lock) {
    __tsan_acquire(lock);
    __tsan_acquire(lock + 4);
}

void REAL(READ_CONTENDED)(void *lock);
void WRAP(READ_CONTENDED)(void *lock) {
    REAL(READ_CONTENDED)(lock);
    acquire_rwlock(lock);
}

void REAL(WRITE_CONTENDED)(void *lock);
void WRAP(WRITE_CONTENDED)(void *lock) {
    REAL(WRITE_CONTENDED)(lock);
    acquire_rwlock(lock);
}

/* fn call(&self, ignore_poisoning: bool, f: &mut dyn FnMut(&OnceState), caller: &Location) of the futex Once.
 * What f does happens before the end of every call, and before every inlined look at the word (the only one,
 * at the address of the Once) that finds it done. The release has to come before the library writes that word,
 * which is between the end of f and the end of the call: so f is called through a table of our own. */
struct vtable {
    void (*drop)(void *);
    size_t size, align;
    void (*call_once)(void *, void *);
    void (*call_mut)(void *, void *);
};

struct once_call {
    void *once, *f;
    const struct vtable *vtable;
};

static void call_and_release(void *data, void *state) {
    struct once_call *call = data;
    call->vtable->call_mut(call->f, state);
    __tsan_release(call->once);
}

void REAL(ONCE_CALL)(void *once, uintptr_t ignore, void *f, const struct vtable *vtable, void *caller);
void WRAP(ONCE_CALL)(void *once, uintptr_t ignore, void *f, const struct vtable *vtable, void *caller) {
    static const struct vtable ours = {
        .size = sizeof(struct once_call), .align = sizeof(void *), .call_mut = call_and_release};
    struct once_call call = {once, f, vtable};
    REAL(ONCE_CALL)(once, ignore, &call, &ours, caller);
    __tsan_acquire(once);
}

/* fn decrement_num_running_threads(&self, panic: bool) of ScopeData: what a thread did happens before the end of
 * its scope, which looks at the number with an inlined acquire. It is one of the three words. */
void REAL(SCOPE_DECREMENT)(void *scope, uintptr_t panic);
void WRAP(SCOPE_DECREMENT)(void *scope, uintptr_t panic) {
    for (int word = 0; word < 3; word++) {
        __tsan_release((char *)scope + 8 * word);
    }
    REAL(SCOPE_DECREMENT)(scope, panic);
}

/* Arc: the last reference is dropped by `fetch_sub(1, Release)` and `fence(Acquire)`. The sanitizer has no model of
 * fences. An acquire fence after a read-modify-write acquires what that has read; only the last subtraction
 * of the thread is remembered, since only Arc and Weak are meant. */
static __thread void *subtracted;

uint64_t REAL(__tsan_atomic64_fetch_sub)(void *address, uint64_t value, int order);
uint64_t WRAP(__tsan_atomic64_fetch_sub)(void *address, uint64_t value, int order) {
    subtracted = address;
    return REAL(__tsan_atomic64_fetch_sub)(address, value, order);
}

void REAL(__tsan_atomic_thread_fence)(int order);
void WRAP(__tsan_atomic_thread_fence)(int order) {
    REAL(__tsan_atomic_thread_fence)(order);
    if (order == __ATOMIC_ACQUIRE && subtracted) {
        __tsan_acquire(subtracted);
    }
}
