//! How often key services are asked: a budget for all root keys together, and a bound on each call.
//!
//! A key service's request limit is shared with everything else in the customer's account. Probes are few and must not
//! wait, so they are counted but never held back; what comes in crowds (unlocking a thousand zones, rotating them) waits
//! its turn, first come first served. Each crowd has few calls in line at a time, so that one root key's does not stand
//! before another's. Where the probes alone need more than half of the budget, crowds have the other half: a zone that
//! waits to be unlocked gets its turn with any setting.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use saker_keyring::{
    CallObserver, CallReason, EncryptionContext, GeneratedKey, KeyFuture, KeyService, KeyServiceError, Outage,
    PlainKey, RootKeyId, WrappedKey,
};
use tokio::time::Instant;

/// A key service behind the budget.
#[derive(Debug)]
pub(crate) struct KeyCalls {
    inner: Arc<dyn KeyService>,
    /// Time that one call takes from the budget.
    each: Duration,
    next: Mutex<Next>,
}

/// When the next call of a crowd may begin: at the earlier of the two. In the past: calls that may begin at once.
#[derive(Debug)]
struct Next {
    /// All calls counted, at the whole budget.
    of_all: Instant,
    /// Crowds alone, at half of it.
    of_crowds: Instant,
}

/// Longest that a call of a key service may take.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Seconds' worth of calls that may begin at once after a quiet time.
const BURST: Duration = Duration::from_secs(1);

impl KeyCalls {
    /// At most `per_second` calls a second, in the long run.
    pub(crate) fn new(inner: Arc<dyn KeyService>, per_second: u32) -> Self {
        Self {
            inner,
            each: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(Next {
                of_all: Instant::now(),
                of_crowds: Instant::now(),
            }),
        }
    }

    /// Takes a call from the budget; when it may begin, if it has to wait for that.
    fn take(&self, is_probe: bool) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let burst = BURST.saturating_sub(self.each);
        let earliest = now.checked_sub(burst).unwrap_or(now);
        let (of_all, of_crowds) = (next.of_all.max(earliest), next.of_crowds.max(earliest));
        if is_probe {
            next.of_all = of_all + self.each;
            return now;
        }
        let at = of_all.min(of_crowds);
        next.of_all = at + self.each;
        next.of_crowds = of_crowds + self.each * 2;
        at
    }

    async fn turn(&self, why: CallReason) {
        let is_probe = match why {
            CallReason::Probe => true,
            CallReason::Unlock
            | CallReason::CreateZone
            | CallReason::Rotate
            | CallReason::Validate
            | CallReason::Verify => false,
        };
        let at = self.take(is_probe);
        if at > Instant::now() {
            tokio::time::sleep_until(at).await;
        }
    }
}

impl KeyService for KeyCalls {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        Box::pin(async move {
            self.turn(why).await;
            bounded(root, self.inner.generate_data_key(root, context, why)).await
        })
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        Box::pin(async move {
            self.turn(why).await;
            bounded(root, self.inner.decrypt(root, wrapped, context, why)).await
        })
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.inner.observe(observer);
    }
}

/// A key service has its own time-out; this one holds if that fails, so that probes never stop for good. The wait for the
/// call's turn is not counted: a long queue is no outage.
async fn bounded<T>(root: &RootKeyId, call: KeyFuture<'_, T>) -> Result<T, KeyServiceError> {
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(answer) => answer,
        Err(_) => Err(KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::Timeout,
        }),
    }
}

#[cfg(test)]
mod tests {
    use saker_keyring::KeyPurpose;
    use saker_testing::ScriptedKms;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn crowds_keep_to_the_budget_and_probes_never_wait() {
        let kms = Arc::new(ScriptedKms::new());
        let root = kms.add_root();
        let calls = KeyCalls::new(kms, 10);
        let context = EncryptionContext {
            cluster: "c".into(),
            database: "d".into(),
            purpose: KeyPurpose::ZoneKey,
        };
        let begin = Instant::now();
        let call = |why| calls.generate_data_key(&root, &context, why);
        for _ in 0..10 {
            call(CallReason::Unlock).await.unwrap();
        }
        let burst = begin.elapsed();
        assert!(burst <= Duration::from_millis(1_000), "{burst:?}");
        for _ in 0..20 {
            call(CallReason::Rotate).await.unwrap();
        }
        let crowd = begin.elapsed();
        assert!(crowd >= Duration::from_millis(1_900), "{crowd:?}");
        let before = Instant::now();
        for _ in 0..100 {
            call(CallReason::Probe).await.unwrap();
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        // They were counted, but a crowd has half of the budget whatever probes there are.
        call(CallReason::Unlock).await.unwrap();
        let waited = before.elapsed();
        assert!(
            waited >= Duration::from_secs(1) && waited <= Duration::from_secs(5),
            "{waited:?}"
        );
        let before = Instant::now();
        for _ in 0..50 {
            for _ in 0..5 {
                call(CallReason::Probe).await.unwrap();
            }
            call(CallReason::Unlock).await.unwrap();
        }
        let half = before.elapsed();
        assert!(
            half >= Duration::from_secs(9) && half <= Duration::from_secs(11),
            "{half:?}"
        );
    }
}
