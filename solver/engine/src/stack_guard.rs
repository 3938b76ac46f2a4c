//! Futures that wait for futures that wait for futures.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The stack that one level of the recursion may use before the next check, with all that is done at its end: look-ups in
/// SQLite, JSON, and in builds without optimisation. 64 KiB were too few for that.
const RED_ZONE: usize = 512 << 10;
/// What is added when there is less.
const MORE: usize = 8 << 20;

/// A boxed future that makes sure of its stack. A step's future polls those of its inputs, so a Dockerfile of ten thousand
/// steps is a recursion of that depth: to poll as well as to drop.
pub(crate) struct StackGuard<'a, T>(Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>);

impl<'a, T> StackGuard<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> StackGuard<'a, T> {
        StackGuard(Some(Box::pin(future)))
    }
}

impl<T> Future for StackGuard<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Some(inner) => stacker::maybe_grow(RED_ZONE, MORE, || inner.as_mut().poll(context)),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for StackGuard<'_, T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        stacker::maybe_grow(RED_ZONE, MORE, || drop(inner));
    }
}
