//! What a connection's request is made of, answered on the spot where that is possible: a search that is computed on its
//! connection's thread needs no task of its own, which takes about as long to make, to schedule and to end as the search
//! takes to be read.
//!
//! What it deliberately does not do: it answers no more than one request this way; requests that came in together have a
//! task each, so that they are spread and other connections have their turn.
//!
//! Start reading at [`begun_by`].

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Waker},
};

use hyper::rt::Executor;

/// Answers one request.
pub(super) type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// What was begun since somebody began to collect it.
    static BEGUN: RefCell<Option<Vec<Answering>>> = const { RefCell::new(None) };
}

/// Gives what a connection begins to the one who [collects](begun_by) it; a task of its own if nobody does.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtOnce;

impl<F> Executor<F> for AtOnce
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, answering: F) {
        let answering: Answering = Box::pin(answering);
        let alone = BEGUN.with_borrow_mut(|begun| match begun {
            Some(begun) => {
                begun.push(answering);
                None
            }
            None => Some(answering),
        });
        alone.into_iter().for_each(spawn);
    }
}

/// Looks after a connection, and collects what it begins.
pub(super) fn begun_by<T>(poll: impl FnOnce() -> T) -> (T, Vec<Answering>) {
    BEGUN.set(Some(Vec::new()));
    let collecting = Collecting;
    let polled = poll();
    let begun = BEGUN.take().unwrap_or_default();
    drop(collecting);
    (polled, begun)
}

/// Nobody collects any more once it is dropped, even by a panic.
struct Collecting;

impl Drop for Collecting {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

/// Goes as far as that is possible without waiting, if there is only one; whether there was. What is left has a task.
pub(super) fn answer(mut begun: Vec<Answering>) -> bool {
    if begun.len() != 1 {
        begun.into_iter().for_each(spawn);
        return false;
    }
    let Some(mut one) = begun.pop() else { return false };
    // Nobody need wake this: what has to wait is looked at again by its task.
    let mut nobody = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| one.as_mut().poll(&mut nobody))) {
        Ok(polled) => {
            if polled.is_pending() {
                spawn(one);
            }
        }
        // What panicked is in the log; the connection's other requests go on, as if it had been a task.
        Err(_) => drop(one),
    }
    true
}

/// A task of its own.
pub(super) fn spawn(answering: Answering) {
    drop(tokio::spawn(answering));
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn begun(futures: Vec<Answering>) -> Vec<Answering> {
        let ((), begun) = begun_by(|| futures.into_iter().for_each(|future| AtOnce.execute(future)));
        begun
    }

    #[tokio::test]
    async fn one_is_answered_on_the_spot() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = |done: &Arc<AtomicUsize>| -> Answering {
            let done = Arc::clone(done);
            Box::pin(async move {
                done.fetch_add(1, Ordering::Relaxed);
            })
        };
        assert!(answer(begun(vec![count(&done)])));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert!(!answer(begun(vec![])));
        // More than one have tasks.
        assert!(!answer(begun(vec![count(&done), count(&done)])));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        while done.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        // So has one that nobody collects.
        AtOnce.execute(count(&done));
        assert_eq!(done.load(Ordering::Relaxed), 3);
        while done.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_has_to_wait_goes_on_in_a_task() {
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel();
        let waits = async move {
            let heard = receive.await;
            let _nobody_waits = done.send(heard);
        };
        assert!(answer(begun(vec![Box::pin(waits)])));
        send.send(()).unwrap();
        assert_eq!(ended.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_panic_ends_nothing_else() {
        assert!(answer(begun(vec![Box::pin(async { panic!("in one request") })])));
        let outcome = catch_unwind(|| begun_by(|| panic!("in the connection")));
        assert!(outcome.is_err());
        assert!(BEGUN.take().is_none(), "nobody collects any more");
    }
}
