//! Connects the REST APIs to the live calls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};

use super::fleet;
use crate::api::{
    CallPlacer, CallSummary, CommandError, LiveCall, LiveCalls, LiveFilter, LiveList, LiveStatus,
    newest_page,
};
use egress::{CustomerUrl, Guard};
use engine::admission::{Gate, NumberEntry};
use engine::call::course::Course;
use engine::call::dialer::{CallOrder, Dialer};
use engine::call::queues::NotPlaced;
use engine::call::streams::StreamView;
use engine::call::{self, Registry};
use engine::cluster::Cluster;
use machine::{CallSetup, Command, RecordingOrder, StreamOrder};
use model::Clock;
use model::{CallUuid, Direction, E164, StreamId};
use store::Scope;
use xml::ast::{DocUrl, Target};

/// Implements the APIs' access to live and queued calls. Each method is limited to the scope of the
/// requester.
pub(super) struct Live {
    pub(super) registry: Registry,
    pub(super) dialer: Dialer,
    pub(super) gate: Arc<Gate>,
    /// Checks customers' URLs.
    pub(super) guard: Guard,
    pub(super) clock: Clock,
    pub(super) cluster: Option<Arc<Cluster>>,
}

impl Live {
    fn find(&self, scope: &Scope, id: CallUuid) -> Option<Arc<call::LiveCall>> {
        self.registry.get(id).filter(|c| scope.holds(&c.setup.account, &c.setup.parent_account))
    }
}

impl LiveCalls for Live {
    fn list(&self, scope: &Scope) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self
            .registry
            .list()
            .iter()
            .filter(|c| !c.is_closing() && scope.holds(&c.setup.account, &c.setup.parent_account))
            .map(|c| live_view(c))
            .collect();
        let waiting = self.dialer.queued();
        calls.extend(
            waiting
                .iter()
                .filter(|setup| holds(scope, setup))
                .map(|setup| view(setup, LiveStatus::Queued)),
        );
        calls.sort_by_key(|c| std::cmp::Reverse((c.started, c.call)));
        calls
    }

    fn page(&self, scope: &Scope, filter: &LiveFilter, skip: usize, take: usize) -> Vec<CallUuid> {
        let mut found = Vec::new();
        let mut collect = |setup: &CallSetup| {
            let call = summary(setup);
            if holds(scope, setup) && filter.matches(&call) {
                found.push((call.started, call.call));
            }
        };
        if filter.queued {
            self.dialer.each(collect);
        } else {
            self.registry.each(|call| {
                if !call.is_closing() {
                    collect(&call.setup);
                }
            });
        }
        newest_page(found, skip, take)
    }

    fn list_all<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, LiveList<LiveCall>> {
        Box::pin(async move {
            let mut list = LiveList { calls: self.list(scope), silent: Vec::new() };
            if let Some(cluster) = &self.cluster {
                fleet::add_live_calls(cluster, scope, &mut list).await;
                list.calls.sort_by_key(|call| std::cmp::Reverse((call.started, call.call)));
            }
            list
        })
    }

    fn page_all<'a>(
        &'a self,
        scope: &'a Scope,
        filter: &'a LiveFilter,
        skip: usize,
        take: usize,
    ) -> BoxFuture<'a, LiveList<CallUuid>> {
        Box::pin(async move {
            if self.cluster.is_none() {
                let calls = self.page(scope, filter, skip, take);
                return LiveList { calls, silent: Vec::new() };
            }
            let LiveList { calls, silent } = self.list_all(scope).await;
            let is_selected = |call: &&LiveCall| {
                let is_queued = call.status == LiveStatus::Queued;
                is_queued == filter.queued && filter.matches(&call.summary())
            };
            let calls = calls.iter().filter(is_selected).skip(skip).take(take);
            LiveList { calls: calls.map(|call| call.call).collect(), silent }
        })
    }

    fn get(&self, scope: &Scope, id: CallUuid) -> Option<LiveCall> {
        let up = self.find(scope, id).filter(|c| !c.is_closing()).map(|c| live_view(&c));
        let waiting = || self.dialer.find(id).filter(|setup| holds(scope, setup));
        up.or_else(|| waiting().map(|setup| view(&setup, LiveStatus::Queued)))
    }

    fn hang_up(&self, scope: &Scope, id: CallUuid) -> bool {
        let waits = self.dialer.find(id).is_some_and(|setup| holds(scope, &setup));
        (waits && self.dialer.cancel(id)) || self.command(scope, id, Command::Hangup).is_ok()
    }

    fn cancel<'a>(&'a self, scope: &'a Scope, id: CallUuid) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let waits = self.dialer.find(id).is_some_and(|setup| holds(scope, &setup));
            if waits && self.dialer.cancel(id) {
                return true;
            }
            let call = self.find(scope, id);
            match call.filter(|call| call.setup.direction == Direction::Outbound) {
                Some(call) => call.cancel().await,
                None => false,
            }
        })
    }

    fn command(&self, scope: &Scope, id: CallUuid, command: Command) -> Result<(), CommandError> {
        let call = self.find(scope, id).ok_or(CommandError::NotLive)?;
        command_result(call.command(command))
    }

    fn streams(&self, scope: &Scope, id: CallUuid) -> Vec<StreamView> {
        self.find(scope, id).map(|call| call.streams()).unwrap_or_default()
    }

    fn start_stream(
        &self,
        scope: &Scope,
        id: CallUuid,
        stream: StreamId,
        order: StreamOrder,
    ) -> Result<bool, CommandError> {
        let call = self.find(scope, id).ok_or(CommandError::NotLive)?;
        call.begin_stream(stream, order, self.clock.wall()).map_err(command_error)
    }

    fn record(
        &self,
        scope: &Scope,
        id: CallUuid,
        order: RecordingOrder,
        callback: Option<Target>,
    ) -> Result<bool, CommandError> {
        let call = self.find(scope, id).ok_or(CommandError::NotLive)?;
        match call.record(order, callback) {
            None => Ok(false),
            Some(delivery) => command_result(delivery).map(|()| true),
        }
    }

    fn is_recorded(&self, scope: &Scope, id: CallUuid) -> bool {
        self.find(scope, id).is_some_and(|call| call.is_recorded())
    }

    fn course(&self, scope: &Scope, id: CallUuid) -> Option<Course> {
        self.find(scope, id)?.course()
    }

    fn events(
        &self,
        scope: &Scope,
        id: CallUuid,
        follow: bool,
    ) -> Option<BoxStream<'static, Arc<str>>> {
        let log = self.find(scope, id)?.log.clone();
        Some(if follow { log.follow().boxed() } else { stream::iter(log.snapshot()).boxed() })
    }
}

impl CallPlacer for Live {
    fn number(&self, scope: &Scope, number: &E164) -> Option<Arc<NumberEntry>> {
        let tables = self.gate.directory().tables();
        let entry = tables.by_number(number)?;
        scope.holds(&entry.account.auth_id, &entry.account.main().auth_id).then(|| entry.clone())
    }

    fn check_url(&self, text: &str) -> Result<DocUrl, String> {
        CustomerUrl::parse(text, &self.guard).map_err(|refusal| refusal.to_string())?;
        Ok(DocUrl(text.into()))
    }

    fn check_socket_url(&self, text: &str) -> Result<DocUrl, String> {
        CustomerUrl::socket(text, &self.guard).map_err(|refusal| refusal.to_string())?;
        Ok(DocUrl(text.into()))
    }

    fn place<'a>(
        &'a self,
        order: &'a CallOrder,
    ) -> BoxFuture<'a, Result<Vec<CallUuid>, NotPlaced>> {
        Box::pin(self.dialer.place(order))
    }
}

fn command_result(delivery: call::SendOutcome) -> Result<(), CommandError> {
    match delivery {
        call::SendOutcome::Delivered => Ok(()),
        delivery => Err(command_error(delivery)),
    }
}

fn command_error(delivery: call::SendOutcome) -> CommandError {
    match delivery {
        call::SendOutcome::Full => CommandError::MailboxFull,
        call::SendOutcome::Delivered | call::SendOutcome::Unknown => CommandError::NotLive,
    }
}

fn summary(setup: &CallSetup) -> CallSummary<'_> {
    CallSummary {
        call: setup.call,
        account: &setup.account,
        direction: setup.direction,
        from: &setup.from,
        to: &setup.to,
        started: setup.started,
    }
}

fn live_view(call: &call::LiveCall) -> LiveCall {
    let status = if call.is_answered() { LiveStatus::InProgress } else { LiveStatus::Ringing };
    let answered = call.answered().map(|at| call.setup.started.plus(Duration::from_millis(at.0)));
    LiveCall { b_leg: call.b_leg(), answered, ..view(&call.setup, status) }
}

fn holds(scope: &Scope, setup: &CallSetup) -> bool {
    scope.holds(&setup.account, &setup.parent_account)
}

fn view(setup: &CallSetup, status: LiveStatus) -> LiveCall {
    LiveCall {
        call: setup.call,
        account: setup.account.clone(),
        main_account: setup.parent_account.clone(),
        direction: setup.direction,
        call_type: setup.call_type,
        from: setup.from.clone(),
        to: setup.to.clone(),
        caller_name: setup.caller_name.clone(),
        status,
        started: setup.started,
        answered: None,
        b_leg: None,
        parent_call: setup.outbound.as_ref().and_then(|placed| placed.parent_call),
    }
}
