//! Handles: tokens that stand for objects, so that a stale one is an error and not a crash.
//!
//! An object lives in a slot that is never freed, only used again under another token. A look-up is
//! arithmetic and reads nothing that changes; the token is compared under the object's own lock,
//! which the call takes anyway.

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::runtime::lock::{Guard, Guarded, NO_KEY, lock};
use crate::sys::fork::{PerProcess, Wiped};

/// A handle's number. From the lowest bit on: a one, 2 bits of kind, 18 bits of index, and 26 bits
/// of generation, which begins at 1. So a token is odd, above 2^21 and below 2^47. Where there are few
/// objects of a kind, the highest bit of the index tells it from another.
pub type Token = u64;

/// The token of a slot that stands for nothing.
pub const NONE: Token = 0;

const KIND_SHIFT: u32 = 1;
const INDEX_SHIFT: u32 = 3;
const GENERATION_SHIFT: u32 = 21;
const MARK_MASK: u64 = (1 << INDEX_SHIFT) - 1;
const HALF_SHIFT: u32 = GENERATION_SHIFT - 1;
const ONE_GENERATION: u64 = 1 << GENERATION_SHIFT;
const END: Token = 1 << 47;

/// How many slots tokens can tell apart. The last of a table is never used: there the tokens that are words
/// of locks would lead to.
pub const SLOTS: usize = 1 << (GENERATION_SHIFT - INDEX_SHIFT);

const _: () = assert!(NO_KEY == (SLOTS as u64 - 1) << INDEX_SHIFT);

/// How many slots are made at a time.
const CHUNK: usize = 128;

/// The number of the slot that a token stands for.
#[inline]
pub fn index_of(token: Token) -> usize {
    (token >> INDEX_SHIFT) as usize % SLOTS
}

/// What a table can hold.
pub trait Object: Default + Sync + 'static {
    /// The number of the type in its tokens: 0 to 3, or 4, which a table that has but half of the slots
    /// tells from 0.
    const KIND: u64;

    /// What the object's lock guards.
    type State: Guarded + 'static;

    /// Locks the object, whichever one the slot stands for at the moment.
    fn lock(&self) -> Guard<'_, Self::State>;

    /// Whether the slot stands for the object of `token`, and its handle is live.
    fn is_of(state: &Self::State, token: Token) -> bool;
}

/// A slot, and the token by which it was found. The slot may stand for another object by now:
/// whoever locks it compares the token.
pub struct Ref<T: 'static> {
    pub slot: &'static T,
    pub token: Token,
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T: Object> Ref<T> {
    /// The object's state, locked, if the handle is live.
    #[inline]
    pub fn state(self) -> Result<Guard<'static, T::State>> {
        let state = self.slot.lock();
        if T::is_of(&state, self.token) { Ok(state) } else { Err(Error::Handle) }
    }

    /// Whether the handle is live.
    pub fn check(self) -> Result<()> {
        self.state().map(|_| ())
    }
}

/// All slots for objects of one type, up to `N`, which divides [`SLOTS`]. A process has none of those of the
/// process it was forked from.
pub struct Table<T: 'static, const N: usize = SLOTS> {
    slots: Wiped<[AtomicPtr<T>; N]>,
    free: PerProcess<Mutex<Free<T>>>,
    /// The lowest index that was never used. A forked child goes on where its parent was, so its tokens
    /// never equal those that it has from there. It changes under the lock of what is free. Relaxed: only
    /// the number matters.
    next: AtomicU32,
}

struct Free<T: 'static> {
    /// Tokens for slots that were given back, each with the slot's next generation.
    tokens: Vec<Token>,
    /// All slots that were made: a leak checker finds them here in a forked child, too.
    chunks: Vec<&'static [T]>,
}

impl<T> Default for Free<T> {
    fn default() -> Free<T> {
        Free { tokens: Vec::new(), chunks: Vec::new() }
    }
}

impl<T: Object, const N: usize> Table<T, N> {
    /// What every token of this table has in common, the one and the kind, and in which bits.
    const MARK: Token = ((T::KIND / 4) << HALF_SHIFT) | ((T::KIND % 4) << KIND_SHIFT) | 1;
    const MASK: u64 = if N < SLOTS { MARK_MASK | 1 << HALF_SHIFT } else { MARK_MASK };

    pub const fn new() -> Table<T, N> {
        Table { slots: Wiped::pointers(), free: PerProcess::new(), next: AtomicU32::new(0) }
    }

    /// The slot of that index, whatever else the token is.
    #[inline]
    pub fn slot(&'static self, token: Token) -> Option<&'static T> {
        self.slots.get(index_of(token))
    }

    /// The slot of a token, if the token can be one of this table.
    #[inline]
    pub fn get(&'static self, token: Token) -> Result<Ref<T>> {
        let slot = self.slot(token).filter(|_| token & Self::MASK == Self::MARK && token < END);
        slot.map(|slot| Ref { slot, token }).ok_or(Error::Handle)
    }

    /// A free slot, in which the caller makes a new object.
    pub fn take(&'static self) -> Result<Ref<T>> {
        let mut free = lock(self.free.get());
        let token = free.tokens.pop().map_or_else(|| self.extend(&mut free), Ok)?;
        drop(free);
        self.get(token)
    }

    /// Makes an object in a slot for it, which is given back if that fails.
    pub fn make<R>(&'static self, make: impl FnOnce(Ref<T>) -> Result<R>) -> Result<R> {
        let object = self.take()?;
        make(object).inspect_err(|_| self.give_back(object.token))
    }

    fn extend(&'static self, free: &mut Free<T>) -> Result<Token> {
        let index = self.next.load(Ordering::Relaxed) as usize;
        if index >= N - 1 {
            // There are as many objects as slots, which is reported like a full descriptor table.
            return Err(Error::Os(Errno::MFILE));
        }
        if self.slots.get(index).is_none() {
            self.slots.wipe_on_fork();
            let chunk: Box<[T]> = std::iter::repeat_with(T::default).take(CHUNK).collect();
            let chunk: &'static [T] = Box::leak(chunk);
            let first = index / CHUNK * CHUNK;
            let indices = first..(first + CHUNK).min(N - 1);
            indices.zip(chunk).for_each(|(index, slot)| self.slots.set(index, slot));
            free.chunks.push(chunk);
        }
        self.next.store(index as u32 + 1, Ordering::Relaxed);
        Ok(ONE_GENERATION | (index as u64) << INDEX_SHIFT | Self::MARK)
    }

    /// Gives back the slot of `token`, under which no object may be live any more. A slot that has
    /// used up its generations is never used again.
    pub fn give_back(&'static self, token: Token) {
        let next = token + ONE_GENERATION;
        if next < END {
            lock(self.free.get()).tokens.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::lock::Lock;

    /// A slot that knows only the token of its object.
    #[derive(Default)]
    struct Thing(Lock<Token>);

    impl Guarded for Token {}

    impl Object for Thing {
        const KIND: u64 = 3;
        type State = Token;

        fn lock(&self) -> Guard<'_, Token> {
            self.0.lock()
        }

        fn is_of(state: &Token, token: Token) -> bool {
            *state == token
        }
    }

    #[test]
    fn tokens() {
        static TABLE: Table<Thing> = Table::new();
        let table = &TABLE;
        let first = table.take().unwrap();
        let second = table.take().unwrap();
        assert_ne!(first.token, second.token);
        for token in [first.token, second.token] {
            assert!(token & 1 == 1 && (4097..END).contains(&token));
        }
        *first.slot.lock() = first.token;
        assert!(first.check().is_ok() && second.check().is_err());
        table.give_back(first.token);
        let again = table.take().unwrap();
        assert!(std::ptr::eq(again.slot, first.slot) && again.check().is_err());
        assert_eq!(again.token, first.token + ONE_GENERATION);
        for bad in [0, 1, 4096, first.token + 1, first.token ^ 2, END | first.token, u64::MAX] {
            assert!(table.get(bad).is_err(), "{bad:#x}");
        }
    }

    #[test]
    fn a_table_is_full_before_its_last_slot() {
        const N: usize = 2 * CHUNK;
        static TABLE: Table<Thing, N> = Table::new();
        for _ in 1..N {
            TABLE.take().unwrap();
        }
        assert!(TABLE.take().is_err());
        assert!(TABLE.slot(NO_KEY).is_none());
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        static TABLE: Table<Thing> = Table::new();
        let table = &TABLE;
        let token = table.take().unwrap().token;
        table.give_back(END - ONE_GENERATION + (token & (ONE_GENERATION - 1)));
        assert!(table.take().unwrap().token < 2 * ONE_GENERATION);
    }
}
