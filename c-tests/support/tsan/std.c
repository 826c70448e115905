/*
 * std.c - what ThreadSanitizer cannot see of Rust's standard library, which is
 * linked as it was shipped, not instrumented: that a lock which was waited for
 * orders what comes after it, and so does a value that is made once.
 *
 * The linker puts these functions in the place of the two slow paths; LOCK and
 * ONCE are their mangled names. The fast paths are inlined and instrumented.
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
