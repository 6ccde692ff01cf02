//! Lists of ended calls. A page is found without reading the calls before it, even among a million.
//!
//! The tables `call_days` and `call_hours` hold the number of calls by account, direction and
//! hangup cause. For filters on these fields, they provide the total number of calls and the hour
//! in which a page starts. Calls for other filters are counted in an index.

use std::ops::Range;

use crate::error::{RowError, StoreError, failed, parse_word};
use crate::rows::call::{CallFilter, CallRecord, CallSort, Compare, PlacedCall};
use crate::scope::{Scope, push_scope};
use crate::sql::{self, Dialect, Pool, QueryBuilder, Row};
use crate::tables::calls::{COLUMNS, Calls, record};
use model::{CallType, CallUuid, Direction, Timestamp, Wacid};

impl Calls<'_> {
    /// Returns ended calls, newest first, and their total number.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &CallFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<CallRecord>, u64), StoreError> {
        List { pool: &self.0.read, scope, filter }.page(limit, offset).await
    }

    /// Returns the first ended calls that match the filter, in the filter's order, without counting
    /// them.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn first(
        self,
        scope: &Scope,
        filter: &CallFilter,
        limit: u32,
    ) -> Result<Vec<CallRecord>, StoreError> {
        List { pool: &self.0.read, scope, filter }.first(limit).await
    }

    /// Returns the times and outcomes of the ended calls that were live at some time from `from` to
    /// `to`. Calls that started last come first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn spans(
        self,
        scope: &Scope,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> Result<Vec<CallSpan>, StoreError> {
        let filter =
            CallFilter { ended: vec![(Compare::GreaterEqual, from)], ..CallFilter::default() };
        let list = List { pool: &self.0.read, scope, filter: &filter };
        let started = list.start_range().await?.start..to.micros();
        let mut query = list.select(SPAN_COLUMNS, &started);
        query.push(" ORDER BY started_us DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let unreadable = |e: RowError| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
        rows.iter().map(|row| span(row).map_err(unreadable)).collect()
    }

    /// Returns outbound calls of a node that have ended since `since`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn placed_since(
        self,
        node_id: &str,
        since: Timestamp,
    ) -> Result<Vec<PlacedCall>, StoreError> {
        const WHAT: &str = "find recent outbound calls";
        let filter = CallFilter {
            direction: Some(Direction::Outbound),
            ended: vec![(Compare::GreaterEqual, since)],
            ..CallFilter::default()
        };
        let unreadable = |e: RowError| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
        let mut placed = Vec::new();
        for scope in &main_accounts(&self.0.read).await? {
            let list = List { pool: &self.0.read, scope, filter: &filter };
            let started = list.start_range().await?;
            let mut query = list.select("call_uuid, phone_number_id, wacid", &started);
            query.push(" AND call_type = ").push_bind(CallType::Whatsapp.as_str());
            query.push(" AND node_id = ").push_bind(node_id);
            let rows = query.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
            for row in &rows {
                placed.push(placed_call(row).map_err(unreadable)?);
            }
        }
        Ok(placed)
    }

    /// Returns the ended B-legs of the given calls, oldest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn legs(
        self,
        scope: &Scope,
        parents: &[CallUuid],
        limit: u32,
    ) -> Result<Vec<CallRecord>, StoreError> {
        let Some((first, rest)) = parents.split_first() else { return Ok(Vec::new()) };
        let by = indexed_by(self.0.read.dialect(), "calls_parent");
        let mut query = QueryBuilder::new(format!("SELECT {COLUMNS} FROM calls {by} WHERE "));
        push_scope(&mut query, scope);
        query.push(" AND ended_us IS NOT NULL AND parent_call_uuid IN (");
        query.push_bind(first.to_string());
        for parent in rest {
            query.push(", ").push_bind(parent.to_string());
        }
        query.push(") ORDER BY started_us, call_uuid LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| record(WHAT, row)).collect()
    }
}

/// Returns the clause that names the index for a query of calls. SQLite has no statistics and often
/// chooses a worse index. PostgreSQL has statistics and needs no such clause.
pub(crate) fn indexed_by(dialect: Dialect, index: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("INDEXED BY {index}"),
        Dialect::Postgres => String::new(),
    }
}

/// Returns the main accounts that have ended calls. A query for all accounts reads the list of each
/// one, so that calls need no further index for such queries.
pub(crate) async fn main_accounts(pool: &Pool) -> Result<Vec<Scope>, StoreError> {
    let select = sql::query_scalar::<String>("SELECT DISTINCT scope FROM call_days");
    let scopes = select.fetch_all(pool).await.map_err(failed("list accounts"))?;
    let scopes = scopes.into_iter().map(|id| Scope::of(id.into()));
    Ok(scopes.filter(|scope| matches!(scope, Scope::Main(_))).collect())
}

fn placed_call(row: &Row) -> Result<PlacedCall, RowError> {
    Ok(PlacedCall {
        call: row.try_get::<String, _>("call_uuid")?.parse()?,
        phone_number_id: row.try_get::<String, _>("phone_number_id")?.into(),
        wacid: row.try_get::<Option<String>, _>("wacid")?.map(Wacid::from),
    })
}

/// The times and the outcome of a call, for charts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSpan {
    pub started: Timestamp,
    pub answered: Option<Timestamp>,
    pub ended: Timestamp,
    /// Offhook's cause: `HangupCause::as_str`.
    pub cause: String,
    pub direction: Direction,
    pub call_type: CallType,
}

const WHAT: &str = "list calls";

const SPAN_COLUMNS: &str = "started_us, answered_us, ended_us, cause, direction, call_type";

fn span(row: &Row) -> Result<CallSpan, RowError> {
    let time = |column: &str| row.try_get(column).map(Timestamp::from_micros);
    let text = |column: &str| row.try_get::<String, _>(column);
    let answered: Option<i64> = row.try_get("answered_us")?;
    Ok(CallSpan {
        started: time("started_us")?,
        answered: answered.map(Timestamp::from_micros),
        ended: time("ended_us")?,
        cause: text("cause")?,
        direction: parse_word(&text("direction")?)?,
        call_type: parse_word(&text("call_type")?)?,
    })
}

const HOUR_US: i64 = 3_600_000_000;

const HOURS_OF_A_DAY: i64 = 24;

/// A list of calls.
pub(crate) struct List<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) scope: &'a Scope,
    pub(crate) filter: &'a CallFilter,
}

impl List<'_> {
    /// Returns a page and the total number of calls. Pages of all calls are newest first.
    pub(crate) async fn page(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<CallRecord>, u64), StoreError> {
        if !self.is_counted() {
            let started = self.start_range().await?;
            let total = self.count(&started).await?;
            let records = if offset < total {
                self.records(&started, limit, offset).await?
            } else {
                Vec::new()
            };
            return Ok((records, total));
        }
        let days = self.counts("day", i64::MIN..i64::MAX).await?;
        let total = days.iter().map(|(_, calls)| *calls).sum();
        let Some((day, rest)) = place(&days, offset) else { return Ok((Vec::new(), total)) };
        let hours = day.saturating_mul(HOURS_OF_A_DAY);
        let hours = self.counts("hour", hours..hours.saturating_add(HOURS_OF_A_DAY)).await?;
        // A call may have ended between the two queries. The page then starts at the end of the
        // last hour.
        let Some((hour, rest)) = place(&hours, rest) else { return Ok((Vec::new(), total)) };
        let below = hour.saturating_add(1).saturating_mul(HOUR_US);
        Ok((self.records(&(i64::MIN..below), limit, rest).await?, total))
    }

    /// Returns the first calls without counting.
    pub(crate) async fn first(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        let started = self.start_range().await?;
        let f = self.filter;
        let Some(party) = &f.party else { return self.records(&started, limit, 0).await };
        // Two lists, as no index has both parties.
        let is_party = |set: &Option<String>| set.as_ref().is_none_or(|set| set == party);
        let mut found = Vec::new();
        let list = CallFilter { party: None, ..f.clone() };
        if is_party(&f.from) {
            let filter = CallFilter { from: Some(party.clone()), ..list.clone() };
            found = List { filter: &filter, ..*self }.records(&started, limit, 0).await?;
        }
        if is_party(&f.to) {
            let filter = CallFilter { to: Some(party.clone()), ..list };
            found.extend(List { filter: &filter, ..*self }.records(&started, limit, 0).await?);
        }
        found.sort_by(|a, b| {
            let ((a, of_a), (b, of_b)) = (f.sort.position(a), f.sort.position(b));
            let newest_first = b.cmp(&a).then(of_a.0.cmp(&of_b.0));
            if f.sort.is_ascending() { newest_first.reverse() } else { newest_first }
        });
        found.dedup_by_key(|record| record.start.call);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Returns whether the counter tables cover the filter.
    fn is_counted(&self) -> bool {
        let CallFilter { sort, before, .. } = self.filter;
        !self.filter.takes_long() && *sort == CallSort::Newest && before.is_none()
    }

    /// Returns the number of calls by the day or hour of their start, latest first.
    async fn counts(
        &self,
        unit: &'static str,
        within: Range<i64>,
    ) -> Result<Vec<(i64, u64)>, StoreError> {
        let table = if unit == "day" { "call_days" } else { "call_hours" };
        let mut query = QueryBuilder::new(format!(
            "SELECT {unit}, CAST(sum(calls) AS BIGINT) FROM {table} WHERE scope = "
        ));
        query.push_bind(self.scope.auth_id().as_str().to_owned());
        query.push(format_args!(" AND {unit} >= ")).push_bind(within.start);
        query.push(format_args!(" AND {unit} < ")).push_bind(within.end);
        self.push_kind(&mut query);
        query.push(format_args!(" GROUP BY {unit} ORDER BY {unit} DESC"));
        let rows: Vec<(i64, i64)> =
            query.build_query_as().fetch_all(self.pool).await.map_err(failed(WHAT))?;
        Ok(rows
            .into_iter()
            .map(|(at, calls)| (at, u64::try_from(calls).unwrap_or_default()))
            .collect())
    }

    /// Adds the conditions on account, direction and hangup cause.
    fn push_kind(&self, query: &mut QueryBuilder) {
        let f = self.filter;
        for (column, value) in [
            ("auth_id", f.subaccount.as_ref().map(ToString::to_string)),
            ("direction", f.direction.map(|d| d.as_str().to_owned())),
            ("hangup_source", f.hangup_source.clone()),
        ] {
            if let Some(value) = value {
                query.push(format_args!(" AND {column} = ")).push_bind(value);
            }
        }
        if let Some(codes) = &f.hangup_codes {
            query.push(" AND hangup_code BETWEEN ").push_bind(i64::from(*codes.start()));
            query.push(" AND ").push_bind(i64::from(*codes.end()));
        }
    }

    /// Returns the range of start times of the calls that can match the filter's end times: from
    /// the duration of the longest call before the earliest end to the latest end.
    pub(crate) async fn start_range(&self) -> Result<Range<i64>, StoreError> {
        let mut started = i64::MIN..i64::MAX;
        let mut from = None;
        for (compare, at) in &self.filter.ended {
            let at = at.micros();
            match compare {
                Compare::Less | Compare::LessEqual | Compare::Equal => {
                    started.end = started.end.min(at.saturating_add(1))
                }
                Compare::Greater | Compare::GreaterEqual => {}
            }
            match compare {
                Compare::Greater | Compare::GreaterEqual | Compare::Equal => {
                    from = from.max(Some(at))
                }
                Compare::Less | Compare::LessEqual => {}
            }
        }
        if let Some(from) = from {
            let longest = sql::query("SELECT max(longest_us) FROM call_days WHERE scope = $1");
            let longest = longest.bind(self.scope.auth_id().as_str()).fetch_one(self.pool).await;
            let longest =
                longest.and_then(|row| row.try_get::<Option<i64>, _>(0)).map_err(failed(WHAT))?;
            started.start = from.saturating_sub(longest.unwrap_or_default());
        }
        Ok(started)
    }

    async fn count(&self, started: &Range<i64>) -> Result<u64, StoreError> {
        let mut query = self.select("count(*)", started);
        let total: i64 =
            query.build_query_scalar().fetch_one(self.pool).await.map_err(failed(WHAT))?;
        Ok(u64::try_from(total).unwrap_or_default())
    }

    async fn records(
        &self,
        started: &Range<i64>,
        limit: u32,
        offset: u64,
    ) -> Result<Vec<CallRecord>, StoreError> {
        let mut query = self.select(COLUMNS, started);
        let sort = self.filter.sort;
        let (way, ties) = if sort.is_ascending() { ("ASC", "DESC") } else { ("DESC", "ASC") };
        query.push(format_args!(" ORDER BY {} {way}, call_uuid {ties} LIMIT ", sort.column()));
        query.push_bind(i64::from(limit));
        query.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(self.pool).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| record(WHAT, row)).collect()
    }

    /// Returns the query of the calls, without an order. It names the index that leaves the fewest
    /// rows to check.
    pub(crate) fn select(&self, columns: &str, started: &Range<i64>) -> QueryBuilder {
        let f = self.filter;
        let any_time = *started == (i64::MIN..i64::MAX);
        let by_length = any_time && matches!(f.sort, CallSort::Longest | CallSort::Shortest);
        let index = match (self.scope, f) {
            (_, CallFilter { parent_call: Some(_), .. }) => "calls_parent",
            (_, CallFilter { agent: Some(_), .. }) => "calls_of_agent",
            (_, CallFilter { from: Some(_), .. }) => "calls_list_from",
            (_, CallFilter { to: Some(_), .. }) => "calls_list_to",
            (Scope::Main(_), _) if by_length => "calls_by_length",
            (Scope::Main(_), _) if any_time && f.sort.is_by_quality() => "calls_by_quality",
            (Scope::Main(_), _) => "calls_list",
            (Scope::Sub(_), _) => "calls_list_sub",
        };
        let by = indexed_by(self.pool.dialect(), index);
        let mut query = QueryBuilder::new(format!("SELECT {columns} FROM calls {by} WHERE "));
        query.push(match self.scope {
            Scope::Main(_) => "main_auth_id = ",
            // This condition selects the partial index of subaccounts' calls.
            Scope::Sub(_) => "auth_id <> main_auth_id AND auth_id = ",
        });
        query.push_bind(self.scope.auth_id().as_str().to_owned()).push(" AND ended_us IS NOT NULL");
        for (column, value) in [
            ("from_number", f.from.clone()),
            ("to_number", f.to.clone()),
            ("parent_call_uuid", f.parent_call.map(|call| call.to_string())),
            ("agent_id", f.agent.map(|agent| agent.to_string())),
        ] {
            if let Some(value) = value {
                query.push(format_args!(" AND {column} = ")).push_bind(value);
            }
        }
        if let Some(party) = &f.party {
            query.push(" AND (from_number = ").push_bind(party.clone());
            query.push(" OR to_number = ").push_bind(party.clone()).push(")");
        }
        if f.without_legs {
            query.push(" AND parent_call_uuid IS NULL");
        }
        if f.sort.is_by_quality() {
            query.push(" AND mos_hundredths IS NOT NULL");
        }
        self.push_kind(&mut query);
        if started.start > i64::MIN {
            query.push(" AND started_us >= ").push_bind(started.start);
        }
        if started.end < i64::MAX {
            query.push(" AND started_us < ").push_bind(started.end);
        }
        for (compare, secs) in &f.bill_secs {
            query.push(" AND bill_secs").push(compare.sql()).push_bind(*secs);
        }
        for (compare, at) in &f.ended {
            query.push(" AND ended_us").push(compare.sql()).push_bind(at.micros());
        }
        if let Some((value, call)) = &f.before {
            let (column, ascending) = (f.sort.column(), f.sort.is_ascending());
            let (after, ties) = if ascending { (">", "<") } else { ("<", ">") };
            query.push(format_args!(" AND {column} {after}= ")).push_bind(*value);
            query.push(format_args!(" AND ({column} {after} ")).push_bind(*value);
            query.push(format_args!(" OR call_uuid {ties} "));
            query.push_bind(call.to_string()).push(")");
        }
        query
    }
}

/// Finds the hour or day that contains the call at `offset`, and the number of calls in it before
/// that one.
fn place(counts: &[(i64, u64)], offset: u64) -> Option<(i64, u64)> {
    let mut rest = offset;
    for (at, calls) in counts {
        if rest < *calls {
            return Some((*at, rest));
        }
        rest -= calls;
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::rows::call::CallEnd;
    use crate::rows::call::CallStart;
    use crate::tests::end;
    use crate::tests::secs;
    use crate::tests::start;
    use model::Health;
    use model::{CallQuality, Direction, DirectionQuality};

    const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";
    const SUB: &str = "SAAAAAAAAAAAAAAAAAAA";
    const OTHER: &str = "MABBBBBBBBBBBBBBBBBB";

    /// Calls on three days, several with the same start. Some last for hours.
    fn calls() -> Vec<(CallStart, CallEnd)> {
        (0..240_u128)
            .map(|n| {
                let (account, main) = match n % 5 {
                    0 | 1 => (SUB, MAIN),
                    4 if n % 3 == 0 => (OTHER, OTHER),
                    _ => (MAIN, MAIN),
                };
                let mut begun = start(n, account, main);
                let at = i64::try_from(n * 7_919 % 240).unwrap() / 2 * 2_100;
                begun.started = secs(at);
                begun.direction = if n % 4 == 0 { Direction::Outbound } else { Direction::Inbound };
                begun.from = format!("91981234567{}", n % 3);
                begun.parent_call = (n % 7 == 0).then(|| crate::tests::uuid(n % 14));
                let lasted = i64::try_from(n % 11).unwrap() * 1_500;
                let mut over = end(at + lasted, u64::try_from(n % 13).unwrap());
                over.ended = secs(at + lasted);
                over.agent = (n % 5 == 2).then(|| uuid::Uuid::from_u128(1));
                over.quality =
                    (n % 3 > 0).then(|| quality(f64::from(u8::try_from(n % 17).unwrap())));
                over.hangup_code = if n % 6 == 0 { 4010 } else { 4000 };
                over.hangup_source =
                    if n % 6 == 0 { "Plivo".to_owned() } else { "Caller".to_owned() };
                (begun, over)
            })
            .collect()
    }

    /// A quality whose worse direction has this MOS, in quarters.
    fn quality(mos: f64) -> CallQuality {
        let way = |mos| {
            Some(DirectionQuality {
                packets: 1,
                loss_percent: 0.0,
                jitter_ms: 0.0,
                r_factor: 0.0,
                mos,
            })
        };
        CallQuality { inbound: way(mos / 4.0), outbound: way(4.4), round_trip_ms: None }
    }

    fn compare<T: PartialOrd>(how: Compare, have: &T, want: &T) -> bool {
        match how {
            Compare::Equal => have == want,
            Compare::Greater => have > want,
            Compare::GreaterEqual => have >= want,
            Compare::Less => have < want,
            Compare::LessEqual => have <= want,
        }
    }

    /// Computes the same list by checking every call.
    fn by_hand<'c>(
        all: &'c [(CallStart, CallEnd)],
        scope: &Scope,
        f: &CallFilter,
    ) -> Vec<&'c CallStart> {
        let mut list: Vec<&(CallStart, CallEnd)> = all
            .iter()
            .filter(|(s, e)| {
                scope.holds(&s.account, &s.main_account)
                    && f.from.as_ref().is_none_or(|from| *from == s.from)
                    && f.to.as_ref().is_none_or(|to| *to == s.to)
                    && f.direction.is_none_or(|direction| direction == s.direction)
                    && f.party.as_ref().is_none_or(|party| *party == s.from || *party == s.to)
                    && f.agent.is_none_or(|agent| Some(agent) == e.agent)
                    && !(f.without_legs && s.parent_call.is_some())
                    && f.subaccount.as_ref().is_none_or(|sub| *sub == s.account)
                    && f.parent_call.is_none_or(|parent| Some(parent) == s.parent_call)
                    && f.hangup_codes.as_ref().is_none_or(|codes| codes.contains(&e.hangup_code))
                    && f.hangup_source.as_ref().is_none_or(|source| *source == e.hangup_source)
                    && f.bill_secs
                        .iter()
                        .all(|(how, n)| compare(*how, &i64::try_from(e.bill_secs).unwrap(), n))
                    && f.ended.iter().all(|(how, at)| compare(*how, &e.ended, at))
                    && (!f.sort.is_by_quality() || e.mos_hundredths().is_some())
            })
            .collect();
        list.sort_by_key(|(s, e)| match f.sort {
            CallSort::Newest | CallSort::Oldest => {
                (std::cmp::Reverse(s.started.micros()), s.call.to_string())
            }
            CallSort::Longest | CallSort::Shortest => {
                (std::cmp::Reverse(i64::try_from(e.bill_secs).unwrap()), s.call.to_string())
            }
            CallSort::BestQuality | CallSort::WorstQuality => {
                (std::cmp::Reverse(e.mos_hundredths().unwrap()), s.call.to_string())
            }
        });
        if f.sort.is_ascending() {
            list.reverse();
        }
        list.into_iter().map(|(s, _)| s).collect()
    }

    fn filters() -> impl Strategy<Value = CallFilter> {
        let maybe = |likely: f64| prop::bool::weighted(likely);
        let how = || {
            prop::sample::select(vec![
                Compare::Equal,
                Compare::Greater,
                Compare::GreaterEqual,
                Compare::Less,
                Compare::LessEqual,
            ])
        };
        let kinds = (maybe(0.3), maybe(0.3), maybe(0.2), maybe(0.2), any::<bool>());
        let others = (maybe(0.2), maybe(0.2), maybe(0.1));
        let sorts = prop::sample::select(vec![
            CallSort::Newest,
            CallSort::Newest,
            CallSort::Oldest,
            CallSort::Longest,
            CallSort::Shortest,
            CallSort::BestQuality,
            CallSort::WorstQuality,
        ]);
        let more = (maybe(0.2), maybe(0.1), maybe(0.2), sorts);
        let times = prop::collection::vec((how(), 0..300_i64), 0..3);
        let bills = prop::collection::vec((how(), 0..14_i64), 0..2);
        let (times, bills) =
            (prop::option::weighted(0.4, times), prop::option::weighted(0.2, bills));
        (kinds, others, more, times, bills).prop_map(
            |((direction, sub, code, source, which), (from, to, parent), more, ended, bills)| {
                let (party, agent, without_legs, sort) = more;
                CallFilter {
                    direction: direction.then_some(if which {
                        Direction::Inbound
                    } else {
                        Direction::Outbound
                    }),
                    subaccount: sub.then(|| if which { SUB.into() } else { MAIN.into() }),
                    hangup_codes: code.then_some(if which { 4010..=4010 } else { 3000..=4009 }),
                    hangup_source: source
                        .then(|| if which { "Plivo".to_owned() } else { "Caller".to_owned() }),
                    from: from.then(|| "919812345671".to_owned()),
                    to: to.then(|| "918035737458".to_owned()),
                    parent_call: parent.then(|| crate::tests::uuid(7)),
                    ended: ended
                        .unwrap_or_default()
                        .into_iter()
                        .map(|(how, at)| (how, secs(at * 1_050)))
                        .collect(),
                    bill_secs: bills.unwrap_or_default(),
                    party: party
                        .then(|| if which { "919812345671" } else { "918035737458" }.to_owned()),
                    agent: agent.then(|| uuid::Uuid::from_u128(1)),
                    without_legs,
                    sort,
                    before: None,
                }
            },
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lists_match_a_scan_of_all_calls() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("o.db"), Health::new()).await.unwrap();
        let all = calls();
        for (begun, over) in all.clone() {
            assert!(store.calls().conclude_without_callbacks(begun, over).await.unwrap());
        }
        let cases = (
            prop::sample::select(vec![MAIN, SUB, OTHER]),
            filters(),
            prop::sample::select(vec![0_u64, 1, 19, 40, 100, 150, 10_000]),
            prop::sample::select(vec![1_u32, 7, 20]),
        );
        let mut runner = TestRunner::deterministic();
        for _ in 0..400 {
            let (who, filter, offset, limit) = cases.new_tree(&mut runner).unwrap().current();
            let scope = Scope::of(who.into());
            let want = by_hand(&all, &scope, &filter);
            let (page, total) = store.calls().list(&scope, &filter, limit, offset).await.unwrap();
            let of = |list: &[CallRecord]| list.iter().map(|r| r.start.call).collect::<Vec<_>>();
            let wanted = |skip: u64| -> Vec<_> {
                let skip = usize::try_from(skip).unwrap();
                want.iter().skip(skip).take(limit as usize).map(|s| s.call).collect()
            };
            assert_eq!(
                (total, of(&page)),
                (want.len() as u64, wanted(offset)),
                "{who} {filter:?} {offset}"
            );
            // The next page by cursor.
            if let Some(last) = page.last() {
                let behind =
                    CallFilter { before: Some(filter.sort.position(last)), ..filter.clone() };
                let next = store.calls().first(&scope, &behind, limit).await.unwrap();
                assert_eq!(of(&next), wanted(offset + page.len() as u64), "{who} {behind:?}");
            }
        }
        // Deleted calls are not counted.
        store.close().await;
        let db = crate::testing::pool(&dir.path().join("o.db")).await;
        sql::query("DELETE FROM calls WHERE direction = 'outbound'").execute(&db).await.unwrap();
        let left = "SELECT (SELECT count(*) FROM calls WHERE main_auth_id = $1), \
            (SELECT CAST(sum(calls) AS BIGINT) FROM call_days WHERE scope = $1), \
            (SELECT CAST(sum(calls) AS BIGINT) FROM call_hours WHERE scope = $1)";
        let left: (i64, i64, i64) = sql::query_as(left).bind(MAIN).fetch_one(&db).await.unwrap();
        assert!(left.0 == left.1 && left.0 == left.2 && left.0 > 0, "{left:?}");
    }

    #[test]
    fn position_is_found_from_the_counts() {
        let counts = [(9, 3), (7, 2), (1, 4)];
        for (offset, found) in [
            (0, Some((9, 0))),
            (2, Some((9, 2))),
            (3, Some((7, 0))),
            (4, Some((7, 1))),
            (8, Some((1, 3))),
            (9, None),
        ] {
            assert_eq!(place(&counts, offset), found, "{offset}");
        }
    }
}
