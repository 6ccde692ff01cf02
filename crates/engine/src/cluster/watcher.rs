//! The task that watches the other nodes and starts the reaping of dead ones.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleet::{Finding, Reading, RunReading, Watch};
use store::{FleetSession, RunInfo, Store, StoreError};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::peers::post;
use super::{About, READ_INTERVAL, Reaper, Shared, TERM};

/// Timeout for one reading of the other nodes and its consequences.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the files of two nodes may differ, while a new one is rolled out.
const DIFFERENCE_MAX: Duration = Duration::from_secs(600);

pub(super) struct Watcher<R> {
    store: Store,
    session: Option<FleetSession>,
    shared: Arc<Shared>,
    reaper: Arc<R>,
    watch: Watch,
    /// This process's description of itself, as stored in the database.
    about: About,
    difference: Difference,
    /// Dead runs that are being reaped by this process.
    reaping: BTreeMap<Uuid, JoinHandle<()>>,
}

/// Since when the numbers in another node's file differ, and whether it was reported.
#[derive(Default)]
struct Difference(Option<(Duration, bool)>);

impl Difference {
    /// Returns whether to report a difference: once, when it has lasted for [`DIFFERENCE_MAX`].
    fn is_due(&mut self, differs: bool, now: Duration) -> bool {
        if !differs {
            self.0 = None;
            return false;
        }
        let (since, is_reported) = self.0.get_or_insert((now, false));
        let is_due = !*is_reported && now.saturating_sub(*since) >= DIFFERENCE_MAX;
        *is_reported |= is_due;
        is_due
    }
}

impl<R: Reaper> Watcher<R> {
    pub(super) fn new(store: Store, shared: Arc<Shared>, about: About, reaper: R) -> Self {
        let watch = Watch::new(shared.run, shared.ended.borrow().clone());
        let reaper = Arc::new(reaper);
        let (session, difference, reaping) = Default::default();
        Self { store, session, shared, reaper, watch, about, difference, reaping }
    }

    pub(super) async fn run(mut self) {
        let stop = self.shared.stop_watching.clone();
        while !stop.is_cancelled() && !self.shared.dead.is_cancelled() {
            self.exchange_terms();
            match tokio::time::timeout(TIMEOUT, self.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "state of the fleet not read");
                    self.session = None;
                }
                Err(_) => {
                    tracing::warn!("reading the state of the fleet timed out");
                    self.session = None;
                }
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(READ_INTERVAL)).await;
        }
        for (_, reaping) in std::mem::take(&mut self.reaping) {
            let _ = reaping.await;
        }
    }

    /// Exchanges the ids of terms with the other nodes. Nodes on an old and on a new primary notice
    /// each other by that.
    fn exchange_terms(&self) {
        let Some(term) = self.shared.term() else { return };
        for run in self.shared.peers.sees() {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let request = post(TERM, Bytes::from(term.to_string()));
                let Ok(response) = shared.peers.send(run, request).await else { return };
                let theirs = std::str::from_utf8(response.body()).ok();
                if let Some(theirs) = theirs.and_then(|term| term.parse().ok()) {
                    shared.report_term(theirs);
                }
            });
        }
    }

    /// Reads the state of the other nodes and acts on it.
    async fn step(&mut self) -> Result<(), StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.store.fleet_session().await?),
        };
        let sent = self.shared.now();
        let (mark, term, runs) = session.runs().await?;
        let received = self.shared.now();
        let abouts: Vec<About> = runs.iter().map(About::read).collect();
        let seen = |(info, about): (&RunInfo, &About)| {
            let (run, state, seq) = (info.run, info.state, info.seq);
            RunReading { run, state, seq, sees: about.sees.clone() }
        };
        let rows = runs.iter().zip(&abouts).map(seen).collect();
        self.watch.read(Reading { sent, received, mark, term: term.id, runs: rows });
        let members = u32::try_from(self.watch.members().count()).unwrap_or(u32::MAX);
        self.shared.members.store(members, Ordering::Release);
        let peers = &self.shared.peers;
        let is_other =
            |(info, _): &(&RunInfo, &About)| info.run != self.shared.run && info.state.is_member();
        let others = || runs.iter().zip(&abouts).filter(is_other);
        peers.set_members(others().map(|(info, about)| about.address(info.run)).collect());
        self.about.sees = peers.sees();
        let numbers = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.about.numbers = numbers;
        let own = runs.iter().zip(&abouts).find(|(info, _)| info.run == self.shared.run);
        if own.is_some_and(|(_, stored)| *stored != self.about) {
            session.describe(self.shared.run, &self.about.json()).await?;
        }
        let differing = others().find(|(_, about)| self.about.numbers_differ(about));
        if self.difference.is_due(differing.is_some(), received)
            && let Some((other, _)) = differing
        {
            tracing::warn!(
                node_id = %other.node_id,
                "another node has different [[number]] tables; those of the last node to start or reload are in force"
            );
        }
        let findings = self.watch.findings(|run| peers.link(run));
        let find = |run: Uuid| runs.iter().find(|info| info.run == run);
        for finding in findings {
            match finding {
                Finding::Dead { run, seq, death } => {
                    if let Some(info) = find(run)
                        && session.declare_dead(run, seq).await?
                    {
                        tracing::warn!(%run, node_id = %info.node_id, ?death, "node declared dead");
                        let reaper = self.reaper.clone();
                        reap(&mut self.reaping, reaper, info, None);
                    }
                }
                Finding::Release { run } => {
                    if let Some(info) = find(run) {
                        let release = Some(self.store.clone());
                        reap(&mut self.reaping, self.reaper.clone(), info, release);
                    }
                }
            }
        }
        self.reaping.retain(|_, task| !task.is_finished());
        self.shared.ended.send_if_modified(|ended| {
            let before = ended.len();
            ended.retain(|run| runs.iter().any(|info| info.run == *run));
            ended.len() < before
        });
        let others = runs.into_iter().filter(|info| info.run != self.shared.run).collect();
        *self.shared.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
        Ok(())
    }
}

/// Starts to reap a run, unless it is already being reaped. `release` gives back its units
/// afterwards.
fn reap<R: Reaper>(
    reaping: &mut BTreeMap<Uuid, JoinHandle<()>>,
    reaper: Arc<R>,
    info: &RunInfo,
    release: Option<Store>,
) {
    let info = info.clone();
    if reaping.get(&info.run).is_some_and(|task| !task.is_finished()) {
        return;
    }
    let run = info.run;
    let work = async move {
        let node_id = info.node_id.clone();
        let reaped = async {
            reaper.reap(info).await?;
            if let Some(store) = release {
                let mut session = store.fleet_session().await?;
                if session.release(run).await? {
                    tracing::info!(%run, node_id, "units of a dead node given back");
                }
                session.close().await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = reaped.await {
            tracing::warn!(%error, %run, "work of a dead node not settled, trying again");
        }
    };
    reaping.insert(run, tokio::spawn(work));
}

#[cfg(test)]
mod tests {
    use super::{DIFFERENCE_MAX, Difference, Duration};

    #[test]
    fn f38_files_that_differ_for_long_are_reported_once() {
        let mut difference = Difference::default();
        let (early, late) = (Duration::from_secs(5), Duration::from_secs(5) + DIFFERENCE_MAX);
        let mut is_due = |differs, now| difference.is_due(differs, now);
        assert!(!is_due(true, early) && !is_due(false, late), "it was rolled out");
        assert!(!is_due(true, late) && !is_due(true, late + early));
        assert!(is_due(true, late + DIFFERENCE_MAX) && !is_due(true, late + DIFFERENCE_MAX));
    }
}
