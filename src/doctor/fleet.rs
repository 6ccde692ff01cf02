//! Checks of a PostgreSQL server, and of the other nodes that share it.

use std::time::Duration;

use super::{Doctor, Finding};
use engine::cluster::{About, Peers};
use model::Timestamp;
use store::{Database, FleetSession, RunInfo, Server, Trials, key_fingerprint};

/// Round trip to the database above which calls are noticeably delayed.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(5);

/// Maximum number of database connections that a node of a fleet uses.
const CONNECTIONS: i32 = 16;

/// Maximum difference between the wall clocks of this machine and of the database.
const APART_MAX: Duration = Duration::from_secs(5);

impl Doctor {
    /// Checks the database server and the other nodes. Returns no findings with SQLite, or if the
    /// database does not answer, which another check reports.
    pub(super) async fn fleet(&self) -> Vec<Finding> {
        let at = &self.config.store.database;
        if !matches!(at, Database::Postgres(_)) || matches!(self.store, Err(Some(_))) {
            return Vec::new();
        }
        let server = match Server::read(at).await {
            Ok(server) => server,
            Err(error) => {
                let fix = "look at the log of the database server";
                return vec![Finding::failed(DATABASE, error.to_string(), fix)];
            }
        };
        if self.store.is_err() {
            return self.without_tables(&server);
        }
        let own = self.config.cluster.own_id();
        let Some(peer) = &self.config.cluster.peer else {
            let others = members(at).await.unwrap_or_default();
            let mut findings = vec![server_finding(&server, None, 1, self.clock.wall())];
            findings.extend(no_peer_finding(&others, &own));
            return findings;
        };
        let trials = match Trials::run(at, &self.clock).await {
            Ok(trials) => trials,
            Err(error) => {
                let what = format!("the trial of its locks failed: {error}");
                let fix = "let store.url name PostgreSQL itself, or a pooler in session or transaction mode";
                return vec![Finding::failed(DATABASE, what, fix)];
            }
        };
        let members = match members(at).await {
            Ok(members) => members,
            Err(error) => {
                let fix = "start the node once, which makes the tables";
                return vec![Finding::warning(FLEET, error.to_string(), fix)];
            }
        };
        let now = self.clock.wall();
        let mut findings = vec![server_finding(&server, Some(trials), members.len(), now)];
        let key = self.config.store.secret_key.as_ref().and_then(key_fingerprint);
        let this = About {
            key: key.unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            numbers: self.config.numbers_digest(),
            ..About::default()
        };
        if members.is_empty() {
            findings
                .push(Finding::ok(FLEET, format!("no node runs yet; this one will be at {peer}")));
        }
        for member in members {
            let is_own = own == member.node_id;
            let about = About::read(&member);
            let answers =
                is_own && self.runs != Some(false) || Peers::is_reachable(&about.peer).await;
            let finding = match is_own && self.runs == Some(false) && answers {
                true => same_name_finding(&about),
                false => member_finding(&about, &this, answers),
            };
            findings.push(finding.of(member.node_id));
        }
        findings
    }

    /// The findings about a database in which no node has created its tables yet. The trial of the
    /// locks needs them.
    fn without_tables(&self, server: &Server) -> Vec<Finding> {
        let mut findings = vec![server_finding(server, None, 1, self.clock.wall())];
        if server.refusal().is_none() && !server.creates_tables {
            let fix = "make the user of store.url the owner of the database, or GRANT CREATE ON SCHEMA to it";
            findings.push(Finding::failed(
                DATABASE,
                "the user of store.url may not create tables",
                fix,
            ));
        }
        if let Some(peer) = &self.config.cluster.peer {
            let what = format!(
                "no node runs yet; this one will be at {peer}. After its start, this command also tries the locks of \
                 the database"
            );
            findings.push(Finding::ok(FLEET, what));
        }
        findings
    }
}

const DATABASE: &str = "database";
const FLEET: &str = "fleet";

async fn members(at: &Database) -> Result<Vec<RunInfo>, store::StoreError> {
    let mut session = FleetSession::open(at).await?;
    let (_, _, runs) = session.runs().await?;
    session.close().await?;
    Ok(runs.into_iter().filter(|run| run.state.is_member()).collect())
}

/// Evaluates a database server. `trials` is `None` for a node outside a fleet.
fn server_finding(
    server: &Server,
    trials: Option<Trials>,
    members: usize,
    now: Timestamp,
) -> Finding {
    if let Some(why) = server.refusal() {
        return Finding::failed(DATABASE, why, "change store.url, or upgrade the server");
    }
    let apart = Duration::from_micros(now.micros().abs_diff(server.wall_us));
    let nodes = i32::try_from(members.max(1)).unwrap_or(i32::MAX);
    let needed = CONNECTIONS.saturating_mul(nodes.saturating_add(1));
    if let Some(trials) = trials {
        if !trials.is_one_server {
            let what = "two connections came to different servers: limits would not hold";
            let fix = "let store.url name the one primary, without a balancer over several servers";
            return Finding::failed(DATABASE, what, fix);
        }
        if !trials.sees_commits_after_lock {
            let what = "a transaction that waited for a lock did not see what the other one committed: limits would not hold";
            return Finding::failed(DATABASE, what, "use PostgreSQL 15 or later itself");
        }
        if trials.round_trip > ROUND_TRIP_MAX {
            let what =
                format!("a round trip takes {:?}; each call waits for one", trials.round_trip);
            return Finding::warning(DATABASE, what, "run nodes and database in one place");
        }
        if server.standbys > 0 && !server.is_synchronous {
            let what =
                "it has standbys, and none is synchronous: a failover loses the last records";
            let fix = "set synchronous_standby_names = 'ANY 1 (*)' at the server";
            return Finding::warning(DATABASE, what, fix);
        }
    }
    if !server.fsync {
        let fix = "set fsync = on at the server";
        return Finding::warning(DATABASE, "fsync is off: a power failure can destroy it", fix);
    }
    if apart > APART_MAX {
        let what = format!("its clock and that of this machine are {apart:?} apart");
        return Finding::warning(DATABASE, what, "synchronise both with NTP");
    }
    if server.connections_max < needed {
        let what = format!(
            "it allows {} connections, and {nodes} nodes and a further one need up to {needed}",
            server.connections_max
        );
        return Finding::warning(DATABASE, what, "raise max_connections, or use a pooler");
    }
    let name = server.name.split(" on ").next().unwrap_or_default();
    let round_trip = trials.map(|trials| format!(", round trip {:?}", trials.round_trip));
    Finding::ok(DATABASE, format!("{name}{}", round_trip.unwrap_or_default()))
}

/// The finding about a database that nodes of a fleet use while this configuration has no
/// `cluster.peer`. `None` if no other node runs.
fn no_peer_finding(members: &[RunInfo], own: &str) -> Option<Finding> {
    let other = members.iter().find(|member| member.node_id != own)?;
    let what = format!("node {} uses this database, and this one would not start", other.node_id);
    Some(Finding::failed(FLEET, what, "write peer = \"HOST:7900\" into [cluster]"))
}

/// The finding about a node of this configuration's name that runs on another machine.
fn same_name_finding(about: &About) -> Finding {
    let what = format!("another machine runs a node of this name, at {}", about.peer);
    Finding::failed(FLEET, what, "give each node its own cluster.node_id")
}

/// Evaluates a node. `this` is what a node of this configuration and version says of itself.
fn member_finding(about: &About, this: &About, answers: bool) -> Finding {
    if !this.key.is_empty() && !about.key.is_empty() && about.key != this.key {
        let what = "it has another store.secret_key than this configuration";
        return Finding::failed(FLEET, what, "give all nodes the same key");
    }
    if !answers {
        let what = format!("nothing accepts connections at its address {}", about.peer);
        let fix = "open the port between the nodes; see its cluster.peer and cluster.advertise";
        return Finding::failed(FLEET, what, fix);
    }
    if about.version != this.version {
        let what = format!("it runs version {}, this is {}", about.version, this.version);
        return Finding::warning(FLEET, what, "upgrade one node after the other");
    }
    if this.numbers_differ(about) {
        let what =
            "its configuration has other [[number]] tables; the last node to start or reload wins";
        return Finding::warning(FLEET, what, "give all nodes the same numbers, and reload them");
    }
    Finding::ok(FLEET, format!("a member at {}", about.peer))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{About, Server, Timestamp, Trials, member_finding, server_finding};
    use crate::doctor::State;

    #[test]
    fn f48_a_server_is_judged_by_what_a_fleet_needs() {
        let good = Server {
            version: 150_018,
            name: "PostgreSQL 15.18 on x86_64".to_owned(),
            is_standby: false,
            is_read_only: false,
            creates_tables: true,
            fsync: true,
            connections_max: 100,
            standbys: 1,
            is_synchronous: true,
            wall_us: 1_000_000_000,
        };
        let passed = Trials {
            is_one_server: true,
            sees_commits_after_lock: true,
            round_trip: Duration::from_micros(300),
        };
        let now = Timestamp::from_micros(1_000_000_000);
        let judge = |server: &Server, trials| server_finding(server, Some(trials), 3, now);
        let state = |server: Server| judge(&server, passed).state;
        let ok = judge(&good, passed);
        assert_eq!((ok.state, ok.what.as_str()), (State::Ok, "PostgreSQL 15.18, round trip 300µs"));
        assert_eq!(state(Server { is_standby: true, ..good.clone() }), State::Failed);
        assert_eq!(state(Server { is_read_only: true, ..good.clone() }), State::Failed);
        assert_eq!(state(Server { version: 140_000, ..good.clone() }), State::Failed);
        assert_eq!(state(Server { fsync: false, ..good.clone() }), State::Warning);
        assert_eq!(state(Server { is_synchronous: false, ..good.clone() }), State::Warning);
        assert_eq!(state(Server { connections_max: 63, ..good.clone() }), State::Warning);
        assert_eq!(state(Server { wall_us: 4_600_000_000, ..good.clone() }), State::Warning);
        for (trials, expected) in [
            (Trials { is_one_server: false, ..passed }, State::Failed),
            (Trials { sees_commits_after_lock: false, ..passed }, State::Failed),
            (Trials { round_trip: Duration::from_millis(9), ..passed }, State::Warning),
        ] {
            assert_eq!(judge(&good, trials).state, expected, "{trials:?}");
        }
    }

    #[test]
    fn f48_members_are_reached_and_have_the_same_key() {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let about = About { version, key: "k".to_owned(), ..About::default() };
        let this = |key: &str| About { key: key.to_owned(), ..about.clone() };
        assert_eq!(member_finding(&about, &this("k"), true).state, State::Ok);
        assert_eq!(member_finding(&about, &this(""), true).state, State::Ok);
        assert_eq!(member_finding(&about, &this("other"), true).state, State::Failed);
        assert_eq!(member_finding(&about, &this("k"), false).state, State::Failed);
        let older = About { version: "0.0.1".to_owned(), ..about.clone() };
        assert_eq!(member_finding(&older, &this("k"), true).state, State::Warning);
    }
}
