//! One request to a key service from its sending to its report: nobody can forget to report it.

use std::time::Instant;

use saker_keyring::{
    CallReason, EncryptionContext, KeyCall, KeyOperation, KeyServiceError, ObserverSlot, Outage, RootKeyId,
};

/// What a caller of a key service asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) operation: KeyOperation,
    pub(crate) root: &'a RootKeyId,
    pub(crate) context: &'a EncryptionContext,
    pub(crate) why: CallReason,
}

/// A request that was sent. Dropped unanswered (its caller waits no longer), it is reported as timed out.
#[derive(Debug)]
pub(crate) struct OpenCall<'a> {
    observers: &'a ObserverSlot,
    asked: Asked<'a>,
    sent: Instant,
    ended: bool,
}

impl<'a> OpenCall<'a> {
    /// The request goes out now.
    pub(crate) fn begin(observers: &'a ObserverSlot, asked: Asked<'a>) -> Self {
        Self {
            observers,
            asked,
            sent: Instant::now(),
            ended: false,
        }
    }
    /// The answer is here, with the name that the service gave the request.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, KeyServiceError>, request_id: Option<String>) {
        self.report(outcome.as_ref().map(drop).map_err(Clone::clone), request_id);
    }
    fn report(&mut self, outcome: Result<(), KeyServiceError>, request_id: Option<String>) {
        self.ended = true;
        let took_ms = millis_since(self.sent);
        self.observers
            .tell(&self.asked.call(outcome, request_id, took_ms, took_ms));
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = Err(self.asked.failed(Outage::Timeout));
            self.report(outcome, None);
        }
    }
}

impl Asked<'_> {
    pub(crate) fn call(
        &self,
        outcome: Result<(), KeyServiceError>,
        request_id: Option<String>,
        sent_ms_ago: u64,
        took_ms: u64,
    ) -> KeyCall {
        KeyCall {
            operation: self.operation,
            root: self.root.clone(),
            context: self.context.clone(),
            why: self.why,
            outcome,
            request_id,
            sent_ms_ago,
            took_ms,
        }
    }
    pub(crate) fn failed(&self, outage: Outage) -> KeyServiceError {
        KeyServiceError::Unavailable {
            root: self.root.clone(),
            outage,
        }
    }
}

pub(crate) fn millis_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX)
}
