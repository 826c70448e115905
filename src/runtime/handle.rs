//! Handles: tokens that stand for objects, so that a stale one is an error and not a crash.
//!
//! An object lives in a slot that is never freed, only used again under another token. A look-up is
//! arithmetic and reads nothing that changes; the token is compared under the object's own lock,
//! which the call takes anyway.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::runtime::lock::lock;

/// A handle's number. From the lowest bit on: a one, 2 bits of kind, 18 bits of index, and 26 bits
/// of generation, which begins at 1. So a token is odd, above 2^21 and below 2^47.
pub type Token = u64;

/// The token of a slot that stands for nothing.
pub const NONE: Token = 0;

const KIND_SHIFT: u32 = 1;
const INDEX_SHIFT: u32 = 3;
const GENERATION_SHIFT: u32 = 21;
const INDEX_MASK: u64 = (1 << (GENERATION_SHIFT - INDEX_SHIFT)) - 1;
const KIND_MASK: u64 = 0b11;
const ONE_GENERATION: u64 = 1 << GENERATION_SHIFT;
const END: Token = 1 << 47;

const CHUNK: usize = 128;
const CHUNKS: usize = (INDEX_MASK as usize + 1) / CHUNK;

/// The index with which a new table begins. A forked child inherits it, so its tokens never equal
/// those that it has from its parent. Relaxed: only the number matters, and a fork copies it.
static FIRST: AtomicU32 = AtomicU32::new(0);

/// What a table can hold.
pub trait Object: Default + Sync + 'static {
    /// The number of the type in its tokens: 1 to 3.
    const KIND: u64;

    /// What the object's lock guards.
    type State;

    /// Locks the object, whichever one the slot stands for at the moment.
    fn lock(&self) -> MutexGuard<'_, Self::State>;

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
    pub fn state(self) -> Result<MutexGuard<'static, T::State>> {
        let state = self.slot.lock();
        if T::is_of(&state, self.token) { Ok(state) } else { Err(Error::Handle) }
    }

    /// Whether the handle is live.
    pub fn check(self) -> Result<()> {
        self.state().map(|_| ())
    }
}

/// All slots for objects of one type.
pub struct Table<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
    free: Mutex<Free>,
}

struct Free {
    /// Tokens for slots that were given back, each with the slot's next generation.
    tokens: Vec<Token>,
    /// The lowest index that was never used.
    next: u32,
}

impl<T: Object> Default for Table<T> {
    fn default() -> Self {
        let free = Free { tokens: Vec::new(), next: FIRST.load(Ordering::Relaxed) };
        Table { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(), free: Mutex::new(free) }
    }
}

impl<T: Object> Table<T> {
    /// The slot of a token, if the token can be one of this table.
    #[inline]
    pub fn get(&'static self, token: Token) -> Result<Ref<T>> {
        if token & 1 == 0 || token >> KIND_SHIFT & KIND_MASK != T::KIND || token >= END {
            return Err(Error::Handle);
        }
        let index = (token >> INDEX_SHIFT & INDEX_MASK) as usize;
        match self.chunks[index / CHUNK].get() {
            Some(chunk) => Ok(Ref { slot: &chunk[index % CHUNK], token }),
            None => Err(Error::Handle),
        }
    }

    /// A free slot, in which the caller makes a new object.
    pub fn take(&'static self) -> Result<Ref<T>> {
        let mut free = lock(&self.free);
        let token = free.tokens.pop().map_or_else(|| self.extend(&mut free), Ok)?;
        drop(free);
        self.get(token)
    }

    /// Makes an object in a slot for it, which is given back if that fails.
    pub fn make<R>(&'static self, make: impl FnOnce(Ref<T>) -> Result<R>) -> Result<R> {
        let object = self.take()?;
        make(object).inspect_err(|_| self.give_back(object.token))
    }

    fn extend(&self, free: &mut Free) -> Result<Token> {
        let index = free.next as usize;
        // There are as many objects as tokens, which is reported like a full descriptor table.
        let chunk = self.chunks.get(index / CHUNK).ok_or(Error::Os(Errno::MFILE))?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
        free.next += 1;
        FIRST.fetch_max(free.next, Ordering::Relaxed);
        Ok(ONE_GENERATION | (index as u64) << INDEX_SHIFT | T::KIND << KIND_SHIFT | 1)
    }

    /// Gives back the slot of `token`, under which no object may be live any more. A slot that has
    /// used up its generations is never used again.
    pub fn give_back(&self, token: Token) {
        let next = token + ONE_GENERATION;
        if next < END {
            lock(&self.free).tokens.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot that knows only the token of its object.
    #[derive(Default)]
    struct Thing(Mutex<Token>);

    impl Object for Thing {
        const KIND: u64 = 3;
        type State = Token;

        fn lock(&self) -> MutexGuard<'_, Token> {
            lock(&self.0)
        }

        fn is_of(state: &Token, token: Token) -> bool {
            *state == token
        }
    }

    #[test]
    fn tokens() {
        let table: &'static Table<Thing> = Box::leak(Box::default());
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
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let table: &'static Table<Thing> = Box::leak(Box::default());
        let token = table.take().unwrap().token;
        table.give_back(END - ONE_GENERATION + (token & (ONE_GENERATION - 1)));
        assert!(table.take().unwrap().token < 2 * ONE_GENERATION);
    }
}
