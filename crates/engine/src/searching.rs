//! Where a search runs, and what is checked before and after it.
//!
//! Most run on the compute pool. One that is expected to take about as long as two hand-overs between threads can run on
//! the caller's thread instead, and an embedding program can have all of its searches there. Wherever it runs, the lease is
//! checked before rows are pinned, between segments, and once more before anything is answered.
//!
//! Start reading at [`Engine::search`]; `search` has what is done.

use std::sync::Arc;

use saker_model::CollectionSchema;

use crate::{
    collections::read_body,
    engine::Engine,
    error::Result,
    events::Event,
    opened::{Opened, Pinned},
    search::Plan,
    shared::Shared,
    types::{SearchRequest, SearchResult},
};

/// Bytes of vectors and columns that are read in about half a millisecond.
const SHORT_BYTES_MAX: usize = 4 << 20;
/// Longest filter that is parsed on the caller's thread, in bytes.
const SHORT_FILTER_BYTES_MAX: usize = 4 << 10;
/// Most hits that are merged and fetched there.
const SHORT_HITS_MAX: usize = 1_024;

impl Engine {
    /// Nearest neighbours. Sees every write that was acknowledged before.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotLoaded`](crate::ErrorKind), [`ErrorKind::InvalidParameter`](crate::ErrorKind) and others
    /// for a wrong request; a locked zone, also if it was locked while the search ran.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResult> {
        self.ready(request)?.on_the_pool().await
    }

    /// As [`Self::search`], on the caller's thread if that is expected to take less than about half a millisecond: for a
    /// thread on which nothing else waits.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub async fn search_here_if_short(&self, request: SearchRequest) -> Result<SearchResult> {
        let ready = self.ready(request)?;
        if !ready.may_be_short() {
            return Box::pin(ready.on_the_pool()).await;
        }
        // What waits is boxed: it would make room for itself in every search that does not.
        match ready.here_if_short() {
            Tried::Done(outcome) => outcome,
            Tried::Long(long) => {
                let (ready, plan) = *long;
                Box::pin(ready.planned_on_the_pool(plan)).await
            }
        }
    }

    /// As [`Self::search`] for threads of the caller's own, which it blocks: a single query runs on the caller's thread
    /// from beginning to end, many are spread over the compute pool.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn search_blocking(&self, request: SearchRequest) -> Result<SearchResult> {
        let ready = self.ready(request)?;
        if ready.request.queries_count == 1 {
            return ready.here();
        }
        let shared = Arc::clone(&ready.shared);
        shared.compute.install(|| ready.run_and_check(true))
    }

    /// A collection's fields with their ids; what [`Self::describe_collection`] says of them, without the rest.
    ///
    /// # Errors
    /// As [`Self::describe_collection`].
    pub async fn collection_schema(&self, database: &str, collection: &str) -> Result<Arc<CollectionSchema>> {
        let collection = self.collection(database, collection)?;
        collection.access().lease()?;
        if let Some(opened) = collection.current() {
            return Ok(Arc::clone(&opened.schema));
        }
        let body = Box::pin(read_body(&collection)).await?;
        Ok(Arc::new(body.schema.clone()))
    }

    /// Pins what the request is to see.
    fn ready(&self, request: SearchRequest) -> Result<Ready> {
        let collection = self.collection(&request.database, &request.collection)?;
        let opened = collection.reading()?;
        let partitions = opened.partitions(&request.partitions)?;
        let pinned = collection.pin(&opened, partitions.as_deref())?;
        Ok(Ready {
            shared: Arc::clone(&self.shared),
            opened,
            pinned,
            request,
        })
    }
}

/// A request and the rows that it sees.
struct Ready {
    shared: Arc<Shared>,
    opened: Arc<Opened>,
    pinned: Vec<Pinned>,
    request: SearchRequest,
}

/// What came of a search that was to run here if it is short.
enum Tried {
    Done(Result<SearchResult>),
    Long(Box<(Ready, Plan)>),
}

impl Ready {
    /// Whether it takes little to find out how long it takes, and what comes after the rows were found takes little too.
    fn may_be_short(&self) -> bool {
        let request = &self.request;
        request.queries_count == 1
            && request.limit.saturating_add(request.offset) <= SHORT_HITS_MAX
            && request.params.range_filter.is_none()
            && request.filter.text.len() <= SHORT_FILTER_BYTES_MAX
            && request.filter.templates.is_empty()
    }

    /// Runs it on the caller's thread if it is expected to take less than about half a millisecond.
    fn here_if_short(self) -> Tried {
        let tried = Shared::here(|| {
            let plan = self.plan(false)?;
            if plan.expected_bytes(&self.pinned) > SHORT_BYTES_MAX {
                return Ok(Err(plan));
            }
            self.run(&plan).map(Ok)
        });
        let outcome = match tried {
            Ok(Err(plan)) => return Tried::Long(Box::new((self, plan))),
            Ok(Ok(found)) => Ok(found),
            Err(error) => Err(error),
        };
        let outcome = checked(&self.shared, &self.opened, self.request.queries_count, outcome);
        self.let_go();
        Tried::Done(outcome)
    }

    fn here(self) -> Result<SearchResult> {
        let outcome = self.run_and_check(false);
        self.let_go();
        outcome
    }

    /// Drops it, aside if that may take a while.
    fn let_go(self) {
        if !self.opened.usable() {
            // This may be the last to have its rows, and overwriting gigabytes takes a while.
            let shared = Arc::clone(&self.shared);
            shared.compute.spawn(move || drop(self));
        }
    }

    fn run_and_check(&self, spread: bool) -> Result<SearchResult> {
        let outcome = Shared::here(|| self.run(&self.plan(spread)?));
        checked(&self.shared, &self.opened, self.request.queries_count, outcome)
    }

    async fn on_the_pool(self) -> Result<SearchResult> {
        // Checking and parsing too: a filter may be megabytes of ids.
        self.checked_on_the_pool(|ready| ready.run(&ready.plan(true)?)).await
    }

    async fn planned_on_the_pool(self, plan: Plan) -> Result<SearchResult> {
        self.checked_on_the_pool(move |ready| ready.run(&plan.spread())).await
    }

    async fn checked_on_the_pool(
        self,
        run: impl FnOnce(&Self) -> Result<SearchResult> + Send + 'static,
    ) -> Result<SearchResult> {
        let (shared, opened) = (Arc::clone(&self.shared), Arc::clone(&self.opened));
        let queries = self.request.queries_count;
        let outcome = shared.compute(move || run(&self)).await;
        checked(&shared, &opened, queries, outcome)
    }

    fn plan(&self, spread: bool) -> Result<Plan> {
        Plan::new(&self.opened, &self.request, spread)
    }

    fn run(&self, plan: &Plan) -> Result<SearchResult> {
        plan.run(&self.opened, &self.pinned, &self.request.queries)
    }
}

/// What may be answered.
fn checked(shared: &Shared, opened: &Opened, queries: usize, outcome: Result<SearchResult>) -> Result<SearchResult> {
    // Nothing is answered from memory after the lock.
    opened.check()?;
    let result = outcome.map_err(|error| opened.access.explain(error))?;
    shared.emit(&Event::Searched {
        database: opened.access.database(),
        queries,
    });
    Ok(result)
}
