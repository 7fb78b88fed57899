//! Whether a root key's zones may be used right now: a state machine that is fed with the key service's answers and the
//! time, and says when to lock and unlock.
//!
//! What it deliberately does not do: it asks nobody and reads no clock. Time comes in as milliseconds of a monotonic
//! clock; a clock that runs backwards is taken to stand still. One machine serves one root key on one node.

use std::fmt;

use thiserror::Error;

use crate::{Denial, KeyServiceError, Outage};

/// How leases of a root key are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeasePolicy {
    /// Time between two probes, in milliseconds.
    pub probe_interval_ms: u64,
    /// How long an outage of the key service is served through, in milliseconds; 0 locks at the first one.
    pub grace_ms: u64,
    /// Share of the interval by which a probe may come early or late, so that nodes do not probe in step.
    pub jitter: f64,
}

/// Why a policy is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum LeasePolicyError {
    /// The interval is too short or too long.
    #[error(
        "a probe interval of {probe_interval_ms} ms is outside {} to {} ms",
        LeasePolicy::PROBE_INTERVAL_MS_MIN,
        LeasePolicy::PROBE_INTERVAL_MS_MAX
    )]
    ProbeInterval {
        /// The interval.
        probe_interval_ms: u64,
    },
    /// The grace period is too long.
    #[error("a grace period of {grace_ms} ms is longer than {} ms", LeasePolicy::GRACE_MS_MAX)]
    Grace {
        /// The grace period.
        grace_ms: u64,
    },
    /// The jitter is not a share.
    #[error("a jitter of {jitter} is outside 0 to {}", LeasePolicy::JITTER_MAX)]
    Jitter {
        /// The jitter.
        jitter: f64,
    },
}

impl LeasePolicy {
    /// Shortest interval: the key service's request limit is shared with everything else in the customer's account.
    pub const PROBE_INTERVAL_MS_MIN: u64 = 1_000;
    /// Longest interval: how long a revocation may go unnoticed.
    pub const PROBE_INTERVAL_MS_MAX: u64 = 600_000;
    /// Longest grace period: a day. Beyond it an outage of the key service could hide a revocation for ever.
    pub const GRACE_MS_MAX: u64 = 86_400_000;
    /// Largest jitter.
    pub const JITTER_MAX: f64 = 0.5;
    /// Longest wait between two probes of a key service that does not answer, as long as the interval is not longer
    /// itself: its return has to be noticed.
    pub const BACK_OFF_MS_MAX: u64 = 30_000;
    /// The same, in intervals.
    pub const BACK_OFF_INTERVALS_MAX: u64 = 4;

    /// The policy, if it is within the limits.
    ///
    /// # Errors
    /// [`LeasePolicyError`] names what is not.
    pub fn checked(self) -> Result<Self, LeasePolicyError> {
        if !(Self::PROBE_INTERVAL_MS_MIN..=Self::PROBE_INTERVAL_MS_MAX).contains(&self.probe_interval_ms) {
            return Err(LeasePolicyError::ProbeInterval {
                probe_interval_ms: self.probe_interval_ms,
            });
        }
        if self.grace_ms > Self::GRACE_MS_MAX {
            return Err(LeasePolicyError::Grace {
                grace_ms: self.grace_ms,
            });
        }
        if !(0.0..=Self::JITTER_MAX).contains(&self.jitter) {
            return Err(LeasePolicyError::Jitter { jitter: self.jitter });
        }
        Ok(self)
    }

    /// How long the key service may give no answer at all before that counts as an outage: two probe intervals and
    /// their jitter. A prober that hangs or died must not keep a lease alive.
    #[must_use]
    pub fn silence_max_ms(&self) -> u64 {
        scaled(self.probe_interval_ms, 2.0 * (1.0 + self.jitter))
    }

    /// Time until the next probe after so many answers in a row that were none: it doubles up to a limit.
    fn back_off_ms(&self, outages: u32) -> u64 {
        let interval = self.probe_interval_ms;
        let limit = interval
            .saturating_mul(Self::BACK_OFF_INTERVALS_MAX)
            .min(Self::BACK_OFF_MS_MAX)
            .max(interval);
        let doubled = 1_u64.checked_shl(outages.saturating_sub(1)).unwrap_or(u64::MAX);
        interval.saturating_mul(doubled).min(limit)
    }
}

impl Default for LeasePolicy {
    fn default() -> Self {
        Self {
            probe_interval_ms: 5_000,
            grace_ms: 60_000,
            jitter: 0.1,
        }
    }
}

/// State of a root key on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// The key service said yes at the last probe.
    Active,
    /// The key service cannot be asked; served until the grace period ends.
    Suspect {
        /// When the outage was noticed.
        since_ms: u64,
    },
    /// Not to be used.
    Locked {
        /// Why.
        why: LockReason,
    },
}

/// Why a root key's zones are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReason {
    /// The key service said no.
    Denied(Denial),
    /// The key service could not be asked for longer than the grace period.
    GraceExpired(Outage),
    /// It was not asked yet, or has not answered since the start.
    NotYetOpened,
}

/// What follows from an answer or from time passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a transition to locked must be carried out at once"]
pub enum Transition {
    /// Lock the zones now: refuse, stop, drop, zero.
    Locked,
    /// Unlock the zones.
    Unlocked,
    /// An outage began; go on serving.
    BecameSuspect,
    /// The outage ended within the grace period; go on serving.
    Recovered,
    /// Nothing to do.
    Unchanged,
}

/// A question to the key service that was or will be asked. The later one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(u64);

/// The state machine of one root key.
#[derive(Clone, Debug)]
pub struct LeaseMachine {
    policy: LeasePolicy,
    state: LeaseState,
    /// What the latest outage was.
    outage: Outage,
    /// The last yes.
    confirmed_ms: u64,
    /// The latest time seen; earlier times count as this one.
    now_ms: u64,
    /// Questions asked so far.
    asked: u64,
    /// The latest question that was answered.
    answered: Question,
    /// Answers in a row that were none.
    outages: u32,
    /// How often it was told to lock.
    locks: u64,
}

impl LeaseMachine {
    /// Starts locked: nothing is served before the key service said yes.
    #[must_use]
    pub fn new(policy: LeasePolicy) -> Self {
        Self {
            policy,
            state: LeaseState::Locked {
                why: LockReason::NotYetOpened,
            },
            outage: Outage::Timeout,
            confirmed_ms: 0,
            now_ms: 0,
            asked: 0,
            answered: Question(0),
            outages: 0,
            locks: 0,
        }
    }

    /// The state, as of the last call that brought the time.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state
    }

    /// Whether the root key's zones may be used.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        match self.state {
            LeaseState::Active | LeaseState::Suspect { .. } => true,
            LeaseState::Locked { .. } => false,
        }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &LeasePolicy {
        &self.policy
    }

    /// A question is asked of the key service now; its answer goes to [`Self::on_answer_to`], if one comes.
    pub fn ask(&mut self) -> Question {
        self.asked += 1;
        Question(self.asked)
    }

    /// How often it was told to lock, while locked too: what was permitted before is not permitted any more.
    #[must_use]
    pub fn locks(&self) -> u64 {
        self.locks
    }

    /// The key service answered a question that was asked just now: see [`Self::on_answer_to`].
    pub fn on_answer(&mut self, now_ms: u64, answer: Result<(), &KeyServiceError>) -> Transition {
        let question = self.ask();
        self.on_answer_to(question, now_ms, answer)
    }

    /// The key service answered a question (a real decryption of a wrapped zone key). An answer that comes after that to
    /// a later question says nothing about now, and is passed over.
    pub fn on_answer_to(
        &mut self,
        question: Question,
        now_ms: u64,
        answer: Result<(), &KeyServiceError>,
    ) -> Transition {
        self.advance(now_ms);
        if question < self.answered {
            return Transition::Unchanged;
        }
        self.answered = question;
        self.outages = match answer {
            Ok(()) | Err(KeyServiceError::Denied { .. }) => 0,
            Err(KeyServiceError::Unavailable { .. } | KeyServiceError::Unsupported { .. }) => {
                self.outages.saturating_add(1)
            }
        };
        match answer {
            Ok(()) => {
                self.confirmed_ms = self.now_ms;
                let before = std::mem::replace(&mut self.state, LeaseState::Active);
                match before {
                    LeaseState::Active => Transition::Unchanged,
                    LeaseState::Suspect { .. } => Transition::Recovered,
                    LeaseState::Locked { .. } => Transition::Unlocked,
                }
            }
            Err(KeyServiceError::Denied { denial, .. }) => self.lock(LockReason::Denied(*denial)),
            Err(KeyServiceError::Unavailable { outage, .. }) => self.on_outage(*outage),
            // No answer of the key's owner, so not a denial; but it cannot be served through for longer than an outage.
            Err(KeyServiceError::Unsupported { .. }) => self.on_outage(Outage::Unreachable),
        }
    }

    /// Time passed. Call it at [`Self::deadline_ms`] at the latest.
    pub fn on_time(&mut self, now_ms: u64) -> Transition {
        self.advance(now_ms);
        match self.state {
            LeaseState::Active if self.now_ms - self.confirmed_ms >= self.policy.silence_max_ms() => {
                let since_ms = self.confirmed_ms + self.policy.silence_max_ms();
                self.suspect(since_ms, Outage::Timeout)
            }
            LeaseState::Suspect { since_ms } => self.expire(since_ms, Transition::Unchanged),
            LeaseState::Active | LeaseState::Locked { .. } => Transition::Unchanged,
        }
    }

    /// When [`Self::on_time`] has to be called if no answer comes before: the end of the grace period, or of the time
    /// that the key service may be silent. `None` while locked.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            LeaseState::Active => Some(self.confirmed_ms.saturating_add(self.policy.silence_max_ms())),
            LeaseState::Suspect { since_ms } => Some(since_ms.saturating_add(self.policy.grace_ms)),
            LeaseState::Locked { .. } => None,
        }
    }

    /// How long to wait before the next probe, in milliseconds: the interval, varied by the jitter; while the key service
    /// gives no answer (an outage, throttling) longer each time, up to a limit. After a yes or a no it is the plain
    /// interval. `random01` is a fresh random number between 0 and 1. Probes go on in every state: that is how a locked
    /// key comes back.
    #[must_use]
    pub fn next_probe_ms(&self, random01: f64) -> u64 {
        let random01 = if random01.is_nan() {
            0.5
        } else {
            random01.clamp(0.0, 1.0)
        };
        scaled(
            self.policy.back_off_ms(self.outages),
            1.0 + self.policy.jitter * (2.0 * random01 - 1.0),
        )
    }

    fn on_outage(&mut self, outage: Outage) -> Transition {
        match self.state {
            // If nobody looked while the key service was silent, the outage began before it was told.
            LeaseState::Active => {
                let silent_ms = self.confirmed_ms.saturating_add(self.policy.silence_max_ms());
                self.suspect(self.now_ms.min(silent_ms), outage)
            }
            LeaseState::Suspect { since_ms } => {
                self.outage = outage;
                self.expire(since_ms, Transition::Unchanged)
            }
            // A denial stays the reason: an outage does not take it back.
            LeaseState::Locked { .. } => Transition::Unchanged,
        }
    }

    fn suspect(&mut self, since_ms: u64, outage: Outage) -> Transition {
        self.outage = outage;
        self.state = LeaseState::Suspect { since_ms };
        self.expire(since_ms, Transition::BecameSuspect)
    }

    /// Locks if the grace period that began at `since_ms` is over, else gives `otherwise`.
    fn expire(&mut self, since_ms: u64, otherwise: Transition) -> Transition {
        if self.now_ms.saturating_sub(since_ms) >= self.policy.grace_ms {
            return self.lock(LockReason::GraceExpired(self.outage));
        }
        otherwise
    }

    fn lock(&mut self, why: LockReason) -> Transition {
        let served = self.may_serve();
        self.locks += 1;
        self.state = LeaseState::Locked { why };
        if served {
            Transition::Locked
        } else {
            Transition::Unchanged
        }
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }
}

impl fmt::Display for LockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denial) => denial.fmt(f),
            Self::GraceExpired(outage) => write!(f, "{outage}, and the grace period is over"),
            Self::NotYetOpened => f.write_str("the key service has not yet allowed the key's use"),
        }
    }
}

/// `milliseconds * factor`, for factors of a few.
#[expect(clippy::cast_precision_loss, reason = "an interval is far below 2^53")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float casts saturate; factors are positive"
)]
fn scaled(milliseconds: u64, factor: f64) -> u64 {
    (milliseconds as f64 * factor).round() as u64
}

#[cfg(test)]
mod tests;
