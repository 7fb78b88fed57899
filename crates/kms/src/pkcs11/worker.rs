//! The thread of one token: calls one by one, each at most as old as its caller waits.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use saker_keyring::{GeneratedKey, Outage, PlainKey};
use tokio::sync::oneshot;

use super::{module::Module, token::Token, verdict::Failure};

/// What is asked of a token.
pub(super) enum Work {
    Generate {
        object: String,
        associated: Vec<u8>,
        reply: oneshot::Sender<Result<GeneratedKey, Failure>>,
    },
    Decrypt {
        object: String,
        wrapped: Vec<u8>,
        associated: Vec<u8>,
        reply: oneshot::Sender<Result<PlainKey, Failure>>,
    },
}

/// Work and until when somebody waits for it.
pub(super) struct Task {
    pub(super) work: Work,
    pub(super) until: Instant,
}

/// Hands tasks to the thread. The thread ends when this is dropped and its last call has come back; nobody waits for
/// that, since a library may never come back.
pub(super) struct Worker {
    tasks: mpsc::SyncSender<Task>,
}

impl Worker {
    pub(super) fn start(module: Arc<Module>, token: &str, pin_file: &Path) -> std::io::Result<Self> {
        let (send, tasks) = mpsc::sync_channel(TASKS_MAX);
        let mut token = Token::new(module, token, pin_file);
        std::thread::Builder::new().name("pkcs11".to_owned()).spawn(move || {
            for task in tasks {
                carry_out(&mut token, task);
            }
        })?;
        Ok(Self { tasks: send })
    }

    pub(super) fn give(&self, task: Task) -> Result<(), Failure> {
        self.tasks.try_send(task).map_err(|refused| match refused {
            mpsc::TrySendError::Full(_) => Failure::Outage(Outage::Throttled),
            mpsc::TrySendError::Disconnected(_) => Failure::Outage(Outage::Failed),
        })
    }
}

fn carry_out(token: &mut Token, task: Task) {
    let overdue = Instant::now() >= task.until;
    match task.work {
        Work::Generate {
            object,
            associated,
            reply,
        } if !overdue && !reply.is_closed() => {
            // The caller may have gone meanwhile: the key is dropped and zeroed.
            let _gone = reply.send(token.generate(&object, &associated));
        }
        Work::Decrypt {
            object,
            wrapped,
            associated,
            reply,
        } if !overdue && !reply.is_closed() => {
            let _gone = reply.send(token.decrypt(&object, &wrapped, &associated));
        }
        Work::Generate { .. } | Work::Decrypt { .. } => {}
    }
}

/// Tasks that wait for a token: a second's calls at the default budget. What comes while as many wait is refused as
/// throttled.
const TASKS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(until: Instant) -> (Task, oneshot::Receiver<Result<PlainKey, Failure>>) {
        let (reply, receive) = oneshot::channel();
        let work = Work::Decrypt {
            object: "o".to_owned(),
            wrapped: Vec::new(),
            associated: Vec::new(),
            reply,
        };
        (Task { work, until }, receive)
    }

    #[test]
    fn what_comes_while_too_much_waits_is_refused() {
        let (tasks, waiting) = mpsc::sync_channel(TASKS_MAX);
        let worker = Worker { tasks };
        let until = Instant::now() + Duration::from_secs(60);
        for _ in 0..TASKS_MAX {
            assert_eq!(worker.give(task(until).0), Ok(()));
        }
        assert_eq!(worker.give(task(until).0), Err(Failure::Outage(Outage::Throttled)));
        drop(waiting.recv().unwrap());
        assert_eq!(worker.give(task(until).0), Ok(()));
        drop(waiting);
        assert_eq!(worker.give(task(until).0), Err(Failure::Outage(Outage::Failed)));
    }

    #[test]
    fn work_that_nobody_waits_for_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut token = Token::new(Module::shared(dir.path()), "t", dir.path());
        // It would be answered: a wrapped key of no bytes is refused without asking the token.
        let (asked, mut answer) = task(Instant::now() + Duration::from_secs(60));
        carry_out(&mut token, asked);
        assert!(answer.try_recv().unwrap().is_err());
        let (overdue, mut answer) = task(Instant::now());
        carry_out(&mut token, overdue);
        assert!(answer.try_recv().is_err());
        let (unwanted, answer) = task(Instant::now() + Duration::from_secs(60));
        drop(answer);
        carry_out(&mut token, unwanted);
    }
}
