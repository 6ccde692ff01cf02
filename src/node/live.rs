//! What the APIs ask of the calls that are up, answered by the registry.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::api::{LiveCall, LiveCalls, LiveStatus};
use crate::call::machine::Command;
use crate::call::{self, Registry};
use crate::model::CallUuid;
use crate::store::Scope;

/// The registry, seen by the APIs: each question within the asker's scope.
pub(super) struct Live(pub(super) Registry);

impl Live {
    fn find(&self, scope: &Scope, id: CallUuid) -> Option<Arc<call::LiveCall>> {
        self.0.get(id).filter(|c| scope.holds(&c.setup.account, &c.setup.parent_account))
    }
}

impl LiveCalls for Live {
    fn list(&self, scope: &Scope) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self
            .0
            .list()
            .iter()
            .filter(|c| !c.is_closing() && scope.holds(&c.setup.account, &c.setup.parent_account))
            .map(|c| shown(c))
            .collect();
        calls.sort_by_key(|c| std::cmp::Reverse((c.started, c.call)));
        calls
    }

    fn get(&self, scope: &Scope, id: CallUuid) -> Option<LiveCall> {
        self.find(scope, id).filter(|c| !c.is_closing()).map(|c| shown(&c))
    }

    fn hang_up(&self, scope: &Scope, id: CallUuid) -> bool {
        self.find(scope, id).is_some_and(|c| c.command(Command::Hangup))
    }

    fn events(&self, scope: &Scope, id: CallUuid, follow: bool) -> Option<BoxStream<'static, Arc<str>>> {
        let log = self.find(scope, id)?.log.clone();
        Some(if follow { log.follow().boxed() } else { stream::iter(log.snapshot()).boxed() })
    }
}

fn shown(call: &call::LiveCall) -> LiveCall {
    let setup = &call.setup;
    LiveCall {
        call: setup.call,
        account: setup.account.clone(),
        main_account: setup.parent_account.clone(),
        direction: setup.direction,
        from: setup.from.clone(),
        to: setup.to.clone(),
        caller_name: setup.caller_name.clone(),
        status: if call.is_answered() { LiveStatus::InProgress } else { LiveStatus::Ringing },
        started: setup.started,
        parent_call: None,
    }
}
