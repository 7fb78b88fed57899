//! Every attempt of one call to AWS KMS: the SDK sends again by itself, and each sending is a line of CloudTrail.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aws_sdk_kms::config::{
    ConfigBag, Intercept, RuntimeComponents,
    interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef},
};
use saker_keyring::{KeyServiceError, ObserverSlot, Outage};

use super::verdict;
use crate::calls::{Asked, millis_since};

/// Listens to one call as an interceptor of the SDK.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<Mutex<Vec<Attempt>>>);

#[derive(Debug)]
struct Attempt {
    sent: Instant,
    took_ms: u64,
    /// `None` while there is no answer.
    status: Option<u16>,
    request_id: Option<String>,
}

impl Attempts {
    fn list(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.list().push(Attempt {
            sent: Instant::now(),
            took_ms: 0,
            status: None,
            request_id: None,
        });
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if let (Some(attempt), Some(response)) = (self.list().last_mut(), context.response()) {
            attempt.took_ms = millis_since(attempt.sent);
            attempt.status = Some(response.status().as_u16());
            let id = response
                .headers()
                .get("x-amzn-requestid")
                .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
            attempt.request_id = id.map(str::to_owned);
        }
        Ok(())
    }
}

/// A call and its attempts; dropped before its end (its caller waits no longer), the last attempt timed out.
#[derive(Debug)]
pub(super) struct OpenAttempts<'a> {
    observers: &'a ObserverSlot,
    asked: Asked<'a>,
    attempts: Attempts,
    ended: bool,
}

impl<'a> OpenAttempts<'a> {
    pub(super) fn begin(observers: &'a ObserverSlot, asked: Asked<'a>) -> Self {
        let attempts = Attempts::default();
        Self {
            observers,
            asked,
            attempts,
            ended: false,
        }
    }
    pub(super) fn interceptor(&self) -> Attempts {
        self.attempts.clone()
    }
    /// The call is over with `outcome`, which is that of the last attempt.
    pub(super) fn end<T>(mut self, outcome: &Result<T, KeyServiceError>) {
        self.report(&outcome.as_ref().map(drop).map_err(Clone::clone));
    }
    fn report(&mut self, outcome: &Result<(), KeyServiceError>) {
        self.ended = true;
        let attempts = std::mem::take(&mut *self.attempts.list());
        let last = attempts.len().saturating_sub(1);
        for (number, attempt) in attempts.into_iter().enumerate() {
            let sent_ms_ago = millis_since(attempt.sent);
            let outcome = if number == last {
                outcome.clone()
            } else {
                Err(self.passing(attempt.status))
            };
            // One without an answer lasted until it was given up.
            let took_ms = attempt.status.map_or(sent_ms_ago, |_| attempt.took_ms);
            let call = self.asked.call(outcome, attempt.request_id, sent_ms_ago, took_ms);
            self.observers.tell(&call);
        }
    }
    /// What an attempt came to that was tried again; the SDK tries again after outages alone.
    fn passing(&self, status: Option<u16>) -> KeyServiceError {
        let outage = match status.map(|status| verdict::classify(None, None, status)) {
            // KMS throttles with status 400.
            Some(verdict::Verdict::Unavailable(Outage::BadAnswer)) => Outage::Throttled,
            Some(verdict::Verdict::Unavailable(outage)) => outage,
            Some(verdict::Verdict::Denied(_)) => Outage::Failed,
            None => Outage::Timeout,
        };
        self.asked.failed(outage)
    }
}

impl Drop for OpenAttempts<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = Err(self.asked.failed(Outage::Timeout));
            self.report(&outcome);
        }
    }
}

/// Longer names of a request are not kept; AWS's have 36 characters.
const REQUEST_ID_BYTES_MAX: usize = 128;
