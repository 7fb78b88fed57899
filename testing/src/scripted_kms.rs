//! A key service in memory that answers as a test tells it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use saker_keyring::{
    BlobKey, CallObserver, CallReason, Denial, EncryptionContext, GeneratedKey, KeyCall, KeyFuture, KeyOperation,
    KeyPurpose, KeyService, KeyServiceError, ObserverSlot, Outage, PlainKey, RootKeyId, WrappedKey, random_key,
};

/// What the key service does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmsAnswer {
    /// What it should.
    Right,
    /// A definite no.
    Deny(Denial),
    /// No usable answer.
    Fail(Outage),
    /// Nothing, ever: not even the time-out that a real client has. The caller's own defence is what counts.
    Hang,
    /// What it should, later. Runs on tokio's clock, so a test may pause it.
    Slow(Duration),
    /// A key, but the wrong one.
    WrongKey,
}

/// How often a root key was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmsCalls {
    /// Calls that make a key.
    pub generate: u64,
    /// Calls that unwrap one.
    pub decrypt: u64,
}

impl KmsCalls {
    /// All calls.
    #[must_use]
    pub fn total(self) -> u64 {
        self.generate + self.decrypt
    }
}

/// A key service in memory: it really wraps, bound to root key and context, and misbehaves on request.
///
/// Each call takes the next answer of the root key's script; when that is used up, the standing answer. Every call is
/// counted, whatever the answer.
pub struct ScriptedKms {
    roots: Mutex<BTreeMap<RootKeyId, Root>>,
    observers: ObserverSlot,
    requests: AtomicU64,
}

struct Root {
    key: BlobKey,
    standing: KmsAnswer,
    script: VecDeque<KmsAnswer>,
    /// Start the script over when it is used up.
    again: bool,
    /// Answers for single zones, by the `database` of their encryption context; they go before all others.
    zones: BTreeMap<String, KmsAnswer>,
    calls: BTreeMap<&'static str, KmsCalls>,
}

impl Root {
    fn next(&mut self) -> KmsAnswer {
        let answer = self.script.pop_front().unwrap_or(self.standing);
        if self.again {
            self.script.push_back(answer);
        }
        answer
    }
}

impl ScriptedKms {
    /// A key service without keys.
    #[must_use]
    pub fn new() -> Self {
        Self {
            roots: Mutex::default(),
            observers: ObserverSlot::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// Makes a root key that answers as it should.
    ///
    /// # Panics
    /// After 10^12 keys.
    #[expect(clippy::expect_used, reason = "the name is well formed by its making")]
    pub fn add_root(&self) -> RootKeyId {
        let mut roots = self.roots();
        let number = roots.len() + 1;
        let name = format!("arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-{number:012}");
        let root: RootKeyId = name.parse().expect("an ARN of the right form");
        let key = BlobKey::new(&random_key(), "scripted root key");
        let state = Root {
            key,
            standing: KmsAnswer::Right,
            script: VecDeque::new(),
            again: false,
            zones: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        roots.insert(root.clone(), state);
        root
    }

    /// From now on `root` answers like this; its script is forgotten. An unknown root stays unknown.
    pub fn set(&self, root: &RootKeyId, answer: KmsAnswer) {
        if let Some(state) = self.roots().get_mut(root) {
            state.standing = answer;
            state.script.clear();
            state.again = false;
        }
    }

    /// The next calls for `root` are answered like this, one by one; after that its standing answer holds again.
    pub fn script(&self, root: &RootKeyId, answers: impl IntoIterator<Item = KmsAnswer>) {
        if let Some(state) = self.roots().get_mut(root) {
            state.script = answers.into_iter().collect();
            state.again = false;
        }
    }

    /// Like [`Self::script`], over and over: a key service that flaps.
    pub fn flap(&self, root: &RootKeyId, answers: impl IntoIterator<Item = KmsAnswer>) {
        self.script(root, answers);
        if let Some(state) = self.roots().get_mut(root) {
            state.again = true;
        }
    }

    /// Like [`Self::set`], but the next `stale` calls are still answered as they would have been: a key service whose
    /// hosts hear of a change one after another.
    pub fn set_after(&self, root: &RootKeyId, stale: usize, answer: KmsAnswer) {
        if let Some(state) = self.roots().get_mut(root) {
            let before = state.standing;
            state.standing = answer;
            state.script = std::iter::repeat_n(before, stale).collect();
            state.again = false;
        }
    }

    /// From now on calls with this `database` in their encryption context are answered like this, whatever the other
    /// zones under `root` get; `None`: like the others again.
    pub fn set_zone(&self, root: &RootKeyId, database: &str, answer: Option<KmsAnswer>) {
        if let Some(state) = self.roots().get_mut(root) {
            match answer {
                Some(answer) => state.zones.insert(database.to_owned(), answer),
                None => state.zones.remove(database),
            };
        }
    }

    /// Calls for `root` so far.
    #[must_use]
    pub fn calls(&self, root: &RootKeyId) -> KmsCalls {
        self.roots().get(root).map_or_else(KmsCalls::default, |state| {
            state.calls.values().fold(KmsCalls::default(), |sum, calls| KmsCalls {
                generate: sum.generate + calls.generate,
                decrypt: sum.decrypt + calls.decrypt,
            })
        })
    }

    /// Calls for `root` so far, for one purpose.
    #[must_use]
    pub fn calls_for(&self, root: &RootKeyId, purpose: KeyPurpose) -> KmsCalls {
        self.roots()
            .get(root)
            .and_then(|state| state.calls.get(purpose.as_str()).copied())
            .unwrap_or_default()
    }

    /// Calls for all root keys so far.
    #[must_use]
    pub fn calls_total(&self) -> u64 {
        let names: Vec<RootKeyId> = self.roots().keys().cloned().collect();
        names.iter().map(|root| self.calls(root).total()).sum()
    }

    fn roots(&self) -> MutexGuard<'_, BTreeMap<RootKeyId, Root>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and takes its answer. The lock is never held while the answer is waited for.
    fn answer(&self, root: &RootKeyId, context: &EncryptionContext, count: fn(&mut KmsCalls) -> &mut u64) -> Plan {
        let mut roots = self.roots();
        let Some(state) = roots.get_mut(root) else {
            return Plan::Refuse(denied(root, Denial::NotFound));
        };
        *count(state.calls.entry(context.purpose.as_str()).or_default()) += 1;
        let answer = match state.zones.get(&context.database) {
            Some(answer) => *answer,
            None => state.next(),
        };
        match answer {
            KmsAnswer::Right => Plan::Do {
                after: Duration::ZERO,
                wrong: false,
            },
            KmsAnswer::Slow(after) => Plan::Do { after, wrong: false },
            KmsAnswer::WrongKey => Plan::Do {
                after: Duration::ZERO,
                wrong: true,
            },
            KmsAnswer::Deny(denial) => Plan::Refuse(denied(root, denial)),
            KmsAnswer::Fail(outage) => Plan::Refuse(KeyServiceError::Unavailable {
                root: root.clone(),
                outage,
            }),
            KmsAnswer::Hang => Plan::Hang,
        }
    }

    fn wrap(
        &self,
        root: &RootKeyId,
        context: &EncryptionContext,
        key: &PlainKey,
    ) -> Result<WrappedKey, KeyServiceError> {
        let roots = self.roots();
        let state = roots.get(root).ok_or_else(|| denied(root, Denial::NotFound))?;
        WrappedKey::new(state.key.seal(&bound(root, context), key.expose_bytes())).ok_or_else(|| {
            KeyServiceError::Unavailable {
                root: root.clone(),
                outage: Outage::BadAnswer,
            }
        })
    }

    fn unwrap(
        &self,
        root: &RootKeyId,
        context: &EncryptionContext,
        wrapped: &WrappedKey,
    ) -> Result<PlainKey, KeyServiceError> {
        let roots = self.roots();
        let state = roots.get(root).ok_or_else(|| denied(root, Denial::NotFound))?;
        let opened = state.key.open(&bound(root, context), wrapped.as_bytes()).ok();
        opened
            .and_then(|mut key| PlainKey::take(&mut key))
            .ok_or_else(|| denied(root, Denial::InvalidCiphertext))
    }
}

enum Plan {
    Do { after: Duration, wrong: bool },
    Refuse(KeyServiceError),
    Hang,
}

impl Plan {
    /// Waits as planned; gives whether the key is to be a wrong one.
    async fn wait(self) -> Result<bool, KeyServiceError> {
        match self {
            Self::Do { after, wrong } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                Ok(wrong)
            }
            Self::Refuse(error) => Err(error),
            Self::Hang => std::future::pending().await,
        }
    }
}

impl KeyService for ScriptedKms {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        let report = Report::new(self, KeyOperation::GenerateDataKey, root, context, why);
        Box::pin(report.of(async move {
            let wrong = self.answer(root, context, |calls| &mut calls.generate).wait().await?;
            let plain = random_key();
            let wrapped = self.wrap(root, context, &plain)?;
            Ok(GeneratedKey {
                plain: if wrong { random_key() } else { plain },
                wrapped,
            })
        }))
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        let report = Report::new(self, KeyOperation::Decrypt, root, context, why);
        Box::pin(report.of(async move {
            let wrong = self.answer(root, context, |calls| &mut calls.decrypt).wait().await?;
            let plain = self.unwrap(root, context, wrapped)?;
            Ok(if wrong { random_key() } else { plain })
        }))
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.observers.set(observer);
    }
}

/// Reports one call to the observer: as it ended, or as timed out when its caller waits no longer.
struct Report<'a> {
    observers: &'a ObserverSlot,
    call: Option<KeyCall>,
}

impl<'a> Report<'a> {
    fn new(
        kms: &'a ScriptedKms,
        operation: KeyOperation,
        root: &RootKeyId,
        context: &EncryptionContext,
        why: CallReason,
    ) -> Self {
        let number = kms.requests.fetch_add(1, Ordering::Relaxed);
        let call = KeyCall {
            operation,
            root: root.clone(),
            context: context.clone(),
            why,
            outcome: Err(KeyServiceError::Unavailable {
                root: root.clone(),
                outage: Outage::Timeout,
            }),
            request_id: Some(format!("00000000-0000-4000-9000-{number:012}")),
            sent_ms_ago: 0,
            took_ms: 0,
        };
        Self {
            observers: &kms.observers,
            call: Some(call),
        }
    }

    async fn of<T>(mut self, call: impl Future<Output = Result<T, KeyServiceError>>) -> Result<T, KeyServiceError> {
        let answer = call.await;
        if let Some(mut call) = self.call.take() {
            call.outcome = answer.as_ref().map(drop).map_err(Clone::clone);
            // An outage leaves no answer in which a name could stand.
            if matches!(call.outcome, Err(KeyServiceError::Unavailable { .. })) {
                call.request_id = None;
            }
            self.observers.tell(&call);
        }
        answer
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if let Some(mut call) = self.call.take() {
            call.request_id = None;
            self.observers.tell(&call);
        }
    }
}

fn denied(root: &RootKeyId, denial: Denial) -> KeyServiceError {
    KeyServiceError::Denied {
        root: root.clone(),
        denial,
    }
}

fn bound(root: &RootKeyId, context: &EncryptionContext) -> Vec<u8> {
    format!("{root}|{:?}", context.pairs()).into_bytes()
}

impl Default for ScriptedKms {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ScriptedKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedKms")
            .field("roots", &self.roots().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(database: &str) -> EncryptionContext {
        EncryptionContext {
            cluster: "c".into(),
            database: database.into(),
            purpose: KeyPurpose::ZoneKey,
        }
    }

    fn decrypt_error(result: Result<PlainKey, KeyServiceError>) -> KeyServiceError {
        match result {
            Ok(_) => panic!("a key came out"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn a_key_comes_back_under_its_root_and_context_alone() {
        let kms = ScriptedKms::new();
        let (root, other) = (kms.add_root(), kms.add_root());
        let made = kms
            .generate_data_key(&root, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        let again = kms
            .decrypt(&root, &made.wrapped, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        assert_eq!(made.plain.expose_bytes(), again.expose_bytes());
        for (root, database) in [(&root, "e"), (&other, "d")] {
            let error = decrypt_error(
                kms.decrypt(root, &made.wrapped, &context(database), CallReason::Unlock)
                    .await,
            );
            assert_eq!(error, denied(root, Denial::InvalidCiphertext));
        }
        let unknown = RootKeyId::platform_file();
        let error = decrypt_error(
            kms.decrypt(&unknown, &made.wrapped, &context("d"), CallReason::Unlock)
                .await,
        );
        assert_eq!(error, denied(&unknown, Denial::NotFound));
    }

    #[tokio::test]
    async fn answers_follow_the_script_and_then_stand() {
        let kms = ScriptedKms::new();
        let root = kms.add_root();
        let made = kms
            .generate_data_key(&root, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        kms.set(&root, KmsAnswer::Deny(Denial::Disabled));
        kms.script(&root, [KmsAnswer::Fail(Outage::Throttled), KmsAnswer::Right]);
        let decrypt = async || {
            kms.decrypt(&root, &made.wrapped, &context("d"), CallReason::Unlock)
                .await
        };
        let throttled = KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::Throttled,
        };
        assert_eq!(decrypt_error(decrypt().await), throttled);
        assert!(decrypt().await.is_ok());
        for _ in 0..3 {
            assert_eq!(decrypt_error(decrypt().await), denied(&root, Denial::Disabled));
        }
        kms.flap(&root, [KmsAnswer::Right, KmsAnswer::Fail(Outage::Timeout)]);
        for _ in 0..3 {
            assert!(decrypt().await.is_ok());
            assert!(decrypt().await.is_err());
        }
        kms.set(&root, KmsAnswer::Right);
        assert!(decrypt().await.is_ok() && decrypt().await.is_ok());
    }

    #[tokio::test]
    async fn a_change_may_take_time_and_may_be_for_one_zone_alone() {
        let kms = ScriptedKms::new();
        let root = kms.add_root();
        let (d, e) = (context("d"), context("e"));
        let of_d = kms.generate_data_key(&root, &d, CallReason::CreateZone).await.unwrap();
        let of_e = kms.generate_data_key(&root, &e, CallReason::CreateZone).await.unwrap();
        let decrypt = async |made: &GeneratedKey, context| {
            let answer = kms.decrypt(&root, &made.wrapped, context, CallReason::Probe).await;
            answer.map(drop)
        };
        kms.set_after(&root, 2, KmsAnswer::Deny(Denial::Disabled));
        assert!(decrypt(&of_d, &d).await.is_ok() && decrypt(&of_e, &e).await.is_ok());
        assert_eq!(decrypt(&of_d, &d).await, Err(denied(&root, Denial::Disabled)));
        kms.set_after(&root, 1, KmsAnswer::Right);
        assert_eq!(decrypt(&of_d, &d).await, Err(denied(&root, Denial::Disabled)));
        assert!(decrypt(&of_d, &d).await.is_ok());
        kms.set_zone(&root, "e", Some(KmsAnswer::Deny(Denial::AccessDenied)));
        for _ in 0..3 {
            assert!(decrypt(&of_d, &d).await.is_ok());
            assert_eq!(decrypt(&of_e, &e).await, Err(denied(&root, Denial::AccessDenied)));
        }
        kms.set(&root, KmsAnswer::Deny(Denial::Disabled));
        kms.set_zone(&root, "e", None);
        assert_eq!(decrypt(&of_e, &e).await, Err(denied(&root, Denial::Disabled)));
    }

    #[tokio::test]
    async fn a_wrong_key_is_another_key() {
        let kms = ScriptedKms::new();
        let root = kms.add_root();
        kms.script(&root, [KmsAnswer::WrongKey, KmsAnswer::Right, KmsAnswer::WrongKey]);
        let made = kms
            .generate_data_key(&root, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        let right = kms
            .decrypt(&root, &made.wrapped, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        let wrong = kms
            .decrypt(&root, &made.wrapped, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        assert_ne!(made.plain.expose_bytes(), right.expose_bytes());
        assert_ne!(wrong.expose_bytes(), right.expose_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_come_late_and_hung_ones_never() {
        let kms = ScriptedKms::new();
        let root = kms.add_root();
        kms.script(
            &root,
            [
                KmsAnswer::Slow(Duration::from_secs(10)),
                KmsAnswer::Slow(Duration::from_secs(10)),
            ],
        );
        let (early, late) = (Duration::from_secs(9), Duration::from_secs(11));
        assert!(
            tokio::time::timeout(early, kms.generate_data_key(&root, &context("d"), CallReason::Unlock))
                .await
                .is_err()
        );
        assert!(
            tokio::time::timeout(late, kms.generate_data_key(&root, &context("d"), CallReason::Unlock))
                .await
                .unwrap()
                .is_ok()
        );
        kms.set(&root, KmsAnswer::Hang);
        let year = Duration::from_secs(365 * 86_400);
        assert!(
            tokio::time::timeout(year, kms.generate_data_key(&root, &context("d"), CallReason::Unlock))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn every_call_is_counted_by_root_and_purpose() {
        let kms = ScriptedKms::new();
        let (root, other) = (kms.add_root(), kms.add_root());
        let validation = EncryptionContext {
            purpose: KeyPurpose::Validation,
            ..context("d")
        };
        let made = kms
            .generate_data_key(&root, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        kms.set(&root, KmsAnswer::Deny(Denial::AccessDenied));
        for _ in 0..4 {
            let _refused = kms
                .decrypt(&root, &made.wrapped, &context("d"), CallReason::Unlock)
                .await;
        }
        let _refused = kms.generate_data_key(&root, &validation, CallReason::Validate).await;
        let _made = kms
            .generate_data_key(&other, &context("d"), CallReason::Unlock)
            .await
            .unwrap();
        assert_eq!(
            kms.calls_for(&root, KeyPurpose::ZoneKey),
            KmsCalls {
                generate: 1,
                decrypt: 4
            }
        );
        assert_eq!(
            kms.calls_for(&root, KeyPurpose::Validation),
            KmsCalls {
                generate: 1,
                decrypt: 0
            }
        );
        assert_eq!(kms.calls(&root).total(), 6);
        assert_eq!(kms.calls_total(), 7);
    }
}
