/*
 * std.c - tells ThreadSanitizer what it cannot see in Rust's standard library,
 * which is linked as shipped, without instrumentation: a thread that has waited
 * for a lock comes after the one that held it, and a thread that finds a value
 * initialized comes after the one that did so. The linker puts these functions
 * in the place of the two slow paths, whose mangled names are LOCK and ONCE.
 * The fast paths are inlined and instrumented.
 */
void __tsan_acquire(void *address);
void __tsan_release(void *address);

void real_lock(void *mutex) __asm__("__real_" LOCK);
void wrapped_lock(void *mutex) __asm__("__wrap_" LOCK);
void real_once(void *once, long a, void *b, void *c, void *d) __asm__("__real_" ONCE);
void wrapped_once(void *once, long a, void *b, void *c, void *d) __asm__("__wrap_" ONCE);

void wrapped_lock(void *mutex)
{
    real_lock(mutex);
    __tsan_acquire(mutex);
}

void wrapped_once(void *once, long a, void *b, void *c, void *d)
{
    real_once(once, a, b, c, d);
    __tsan_release(once);
    __tsan_acquire(once);
}
