//! Lists of conversations. Each list reads an index. Conditions that no index covers are checked on
//! a limited number of rows per page, so that the cost of a page does not depend on the number of
//! conversations.

use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::rows::conversation::{AssigneeFilter, Conversation, ConversationFilter};
use crate::scope::Scope;
use crate::sql::{self, Pool, QueryBuilder, Row};
use crate::tables::conversations::{COLUMNS, Conversations, conversation, push_list_scope};
use crate::tables::numbers::{NUMBER_JOIN, NUMBER_ROUTING, OWN_ROUTING, ROUTING_COLUMNS};
use crate::tables::readers::unreadable;
use model::{ConversationStatus, digits_of};

impl Conversations<'_> {
    /// Returns conversations of the scope, those with the latest messages first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &ConversationFilter,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        list(&self.0.read, scope, filter, limit).await
    }
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationPage {
    /// The conversations of the page. There may be fewer than the limit, or none, even if further
    /// pages exist.
    pub found: Vec<Conversation>,
    /// Cursor of the next page. `None` if this is the last one.
    pub next: Option<(i64, Uuid)>,
}

/// Number of rows checked for one page. The next page continues after them.
const ROWS_PER_PAGE: u32 = 1_000;

/// Returns conversations of the scope, those with the latest messages first.
pub(crate) async fn list(
    pool: &Pool,
    scope: &Scope,
    filter: &ConversationFilter,
    limit: u32,
) -> Result<ConversationPage, StoreError> {
    const WHAT: &str = "list conversations";
    let (mut found, mut bound) = (Vec::new(), None);
    let page = usize::try_from(limit).unwrap_or(usize::MAX);
    for scan in Scan::of(pool, scope, filter).await? {
        let mut select = scan.query("", scope, filter, limit + 1);
        let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
        let rows = rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT)));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        // The page ends where one of the scans has ended, since the rows after that were not
        // checked by all of them.
        let end = match rows.last().filter(|_| rows.len() > page) {
            Some(last) => Some(position(last)),
            None => scan.end(pool, scope, filter).await?,
        };
        bound = bound.max(end);
        found.extend(rows);
    }
    found.sort_by_key(|one| std::cmp::Reverse(position(one)));
    found.retain(|one| bound.is_none_or(|bound| position(one) >= bound));
    if found.len() > page {
        found.truncate(page);
        bound = found.last().map(position);
    }
    Ok(ConversationPage { found, next: bound })
}

fn position(one: &Conversation) -> (i64, Uuid) {
    (one.last.at.micros(), one.pair.conversation)
}

/// The index that a list reads. All other conditions are checked on its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    All,
    Number,
    RowError,
    Status(ConversationStatus),
    /// Conversations routed to the agent by their own routing.
    Agent(Uuid),
    /// Conversations assigned to the person.
    Assignee(Uuid),
    /// Users whose digits have a prefix, if they are few. Not ordered.
    Users,
}

impl Scan {
    /// Selects the indexes for a filter. Two are needed if no single one covers all matches.
    async fn of(
        pool: &Pool,
        scope: &Scope,
        filter: &ConversationFilter,
    ) -> Result<Vec<Self>, StoreError> {
        let not_open = filter.status.filter(|status| *status != ConversationStatus::Open);
        Ok(match (filter.agent, not_open) {
            _ if digits(filter).is_some() && Self::fits_one_page(pool, scope, filter).await? => {
                vec![Self::Users]
            }
            _ if filter.number.is_some() => vec![Self::Number],
            (Some(agent), _) => {
                let select = "SELECT count(*) FROM number_tenures WHERE agent = $1";
                let count = sql::query_scalar(select).bind(agent.to_string()).fetch_one(pool).await;
                let by_number: i64 = count.map_err(failed("list conversations"))?;
                if by_number > 0 {
                    vec![Self::Agent(agent), Self::All]
                } else {
                    vec![Self::Agent(agent)]
                }
            }
            _ if let Some(AssigneeFilter::Person(person)) = filter.assignee => {
                vec![Self::Assignee(person)]
            }
            _ if filter.unread == Some(true) => vec![Self::RowError],
            (None, Some(status)) => vec![Self::Status(status)],
            (None, None) => vec![Self::All],
        })
    }

    /// Returns whether all users with this prefix fit on one page. If not, each page checks part of
    /// all conversations, as for any other search text.
    async fn fits_one_page(
        pool: &Pool,
        scope: &Scope,
        filter: &ConversationFilter,
    ) -> Result<bool, StoreError> {
        let mut select =
            QueryBuilder::new("SELECT count(*) FROM (SELECT 1 AS one FROM conversations c WHERE ");
        Self::Users.push_indexed_conditions(&mut select, scope, filter);
        select.push(" LIMIT ").push_bind(i64::from(ROWS_PER_PAGE)).push(") AS few");
        let counted = select.build().fetch_one(pool).await.and_then(|row| row.try_get::<i64, _>(0));
        Ok(counted.map_err(failed("list conversations"))? < i64::from(ROWS_PER_PAGE))
    }

    /// Adds the conditions that the index covers.
    fn push_indexed_conditions(
        self,
        select: &mut QueryBuilder,
        scope: &Scope,
        filter: &ConversationFilter,
    ) {
        push_list_scope(select, scope);
        match self {
            Self::All | Self::Number | Self::Users => {}
            Self::RowError => {
                select.push(" AND c.unread > 0");
            }
            Self::Status(status) => {
                select.push(" AND c.status <> 'open' AND c.status = ").push_bind(status.as_str());
            }
            Self::Agent(agent) => {
                select.push(" AND c.agent IS NOT NULL AND c.agent = ").push_bind(agent.to_string());
            }
            Self::Assignee(person) => {
                select.push(" AND c.assignee IS NOT NULL AND c.assignee = ");
                select.push_bind(person.to_string());
            }
        }
        if let (Self::Number, Some(number)) = (self, &filter.number) {
            select.push(" AND c.number = ").push_bind(number.as_str());
        }
        if let (Self::Users, Some(digits)) = (self, digits(filter)) {
            // A letter sorts after all digits in every collation.
            let end = format!("{digits}a");
            select
                .push(" AND c.user_id >= ")
                .push_bind(digits)
                .push(" AND c.user_id < ")
                .push_bind(end);
        } else {
            push_before(select, filter);
        }
    }

    /// Returns whether there are conditions that the index does not cover.
    fn has_unindexed_conditions(self, filter: &ConversationFilter) -> bool {
        let search = !filter.search.trim().is_empty();
        let (assignee, label) = (filter.assignee.is_some(), filter.label.is_some());
        let search = search || label;
        match self {
            Self::Users | Self::Agent(_) => true,
            Self::All | Self::Number => {
                search
                    || assignee
                    || filter.status.is_some()
                    || filter.unread.is_some()
                    || filter.agent.is_some()
            }
            Self::RowError => search || assignee || filter.status.is_some(),
            Self::Status(_) => search || assignee || filter.unread.is_some(),
            Self::Assignee(_) => search || filter.status.is_some() || filter.unread.is_some(),
        }
    }

    /// Builds the query of a page, with `words` in front of it.
    fn query(
        self,
        words: &str,
        scope: &Scope,
        filter: &ConversationFilter,
        limit: u32,
    ) -> QueryBuilder {
        let mut select =
            QueryBuilder::new(format!("{words}SELECT {COLUMNS}, {ROUTING_COLUMNS} FROM "));
        if !self.has_unindexed_conditions(filter) {
            select.push("conversations c ").push(NUMBER_JOIN).push(" WHERE ");
            self.push_indexed_conditions(&mut select, scope, filter);
            select.push(ORDER).push(" LIMIT ").push_bind(i64::from(limit));
            return select;
        }
        select.push("(SELECT c.* FROM conversations c WHERE ");
        self.push_indexed_conditions(&mut select, scope, filter);
        if self != Self::Users {
            select.push(ORDER);
        }
        select
            .push(" LIMIT ")
            .push_bind(i64::from(ROWS_PER_PAGE))
            .push(") c ")
            .push(NUMBER_JOIN)
            .push(" WHERE 1 = 1");
        self.push_other_conditions(&mut select, filter);
        if self == Self::Users {
            push_before(&mut select, filter);
        }
        // Sorts at most the rows that were checked.
        select.push(ORDER).push(" LIMIT ").push_bind(i64::from(limit));
        select
    }

    fn push_other_conditions(self, select: &mut QueryBuilder, filter: &ConversationFilter) {
        if let (Self::Users, Some(number)) = (self, &filter.number) {
            select.push(" AND c.number = ").push_bind(number.as_str());
        }
        if let Some(status) = filter.status.filter(|status| self != Self::Status(*status)) {
            select.push(" AND c.status = ").push_bind(status.as_str());
        }
        match filter.unread {
            Some(true) => {
                select.push(" AND c.unread > 0");
            }
            Some(false) => {
                select.push(" AND c.unread = 0");
            }
            None => {}
        }
        match filter.assignee {
            Some(AssigneeFilter::Person(person)) if self != Self::Assignee(person) => {
                select.push(" AND c.assignee = ").push_bind(person.to_string());
            }
            Some(AssigneeFilter::Unassigned) => {
                select.push(" AND c.assignee IS NULL");
            }
            Some(AssigneeFilter::Person(_)) | None => {}
        }
        if let Some(label) = filter.label {
            select.push(" AND c.labels LIKE ").push_bind(format!("%{label}%"));
        }
        match (self, filter.agent) {
            (Self::Agent(_), _) => {
                select.push(" AND ").push(OWN_ROUTING);
            }
            (Self::All, Some(agent)) => {
                select
                    .push(" AND ")
                    .push(NUMBER_ROUTING)
                    .push(" AND n.agent = ")
                    .push_bind(agent.to_string());
            }
            (_, Some(agent)) => {
                select
                    .push(" AND (")
                    .push(NUMBER_ROUTING)
                    .push(" AND n.agent = ")
                    .push_bind(agent.to_string());
                select
                    .push(" OR ")
                    .push(OWN_ROUTING)
                    .push(" AND c.agent = ")
                    .push_bind(agent.to_string())
                    .push(")");
            }
            (_, None) => {}
        }
        let search = filter.search.trim();
        if self != Self::Users && !search.is_empty() {
            // Rows written by older versions have no lower-case columns. The database's own lower()
            // covers ASCII at least.
            for (n, text) in [
                "coalesce(c.name_lower, lower(c.name))",
                "coalesce(c.last_lower, lower(c.last_text))",
                "c.user_id",
            ]
            .into_iter()
            .enumerate()
            {
                select.push(if n == 0 { " AND (" } else { " OR " }).push(text).push(" LIKE ");
                select.push_bind(like(search)).push(" ESCAPE '\\'");
            }
            if let Some(digits) = digits(filter) {
                select.push(" OR c.user_id LIKE ").push_bind(format!("{digits}%"));
            }
            select.push(")");
        }
    }

    /// Returns the position of the last row checked for a page, or `None` if there are no more
    /// rows.
    async fn end(
        self,
        pool: &Pool,
        scope: &Scope,
        filter: &ConversationFilter,
    ) -> Result<Option<(i64, Uuid)>, StoreError> {
        const WHAT: &str = "list conversations";
        if !self.has_unindexed_conditions(filter) || self == Self::Users {
            return Ok(None);
        }
        let mut select =
            QueryBuilder::new("SELECT c.last_us, c.conversation_id FROM conversations c WHERE ");
        self.push_indexed_conditions(&mut select, scope, filter);
        select.push(ORDER).push(" LIMIT 1 OFFSET ").push_bind(i64::from(ROWS_PER_PAGE) - 1);
        let row = select.build().fetch_optional(pool).await.map_err(failed(WHAT))?;
        let read = |row: &Row| {
            let id: String = row.try_get("conversation_id")?;
            Ok::<_, RowError>((row.try_get::<i64, _>("last_us")?, id.parse()?))
        };
        row.map(|row| read(&row).map_err(unreadable(WHAT))).transpose()
    }
}

const ORDER: &str = " ORDER BY c.last_us DESC, c.conversation_id DESC";

fn push_before(select: &mut QueryBuilder, filter: &ConversationFilter) {
    if let Some((at, id)) = filter.before {
        select.push(" AND (c.last_us, c.conversation_id) < (").push_bind(at).push(", ");
        select.push_bind(id.to_string()).push(")");
    }
}

/// Returns the digits of a search text that is a phone number or the beginning of one. An index
/// covers such searches.
fn digits(filter: &ConversationFilter) -> Option<String> {
    let search = filter.search.trim();
    let digits = digits_of(search);
    let plain =
        digits.len() >= 5 && search.chars().all(|c| c.is_ascii_digit() || "+ -()".contains(c));
    plain.then(|| digits.to_string())
}

/// Returns a `LIKE` pattern that finds the text anywhere.
fn like(search: &str) -> String {
    let mut like = String::from("%");
    for c in search.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            like.push('\\');
        }
        like.push(c);
    }
    like.push('%');
    like
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::conversation::Pair;
    use crate::rows::conversation::UserName;
    use crate::store::Store;
    use crate::tables::conversations::{open_query, unread_query};
    use crate::tables::messages::{DELETE_EMPTY, count_query};
    use model::E164;
    use model::Health;
    use model::Routing;
    use model::Timestamp;

    /// Every list is ordered by an index, so a page never reads more than [`ROWS_PER_PAGE`] rows.
    #[tokio::test]
    async fn every_list_of_conversations_reads_an_index_in_order() {
        if crate::testing::skipped_on_postgres() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let before = Some((7, Uuid::from_u128(7)));
        let none = || ConversationFilter { before, ..ConversationFilter::default() };
        let number = || Some(E164::parse("918035737458").unwrap());
        let agent = Some(Uuid::from_u128(1));
        let search = |text: &str| ConversationFilter { search: text.to_owned(), ..none() };
        let status = |status| ConversationFilter { status: Some(status), ..none() };
        // The filter, the index that it uses, and the index names for a main account and a
        // subaccount.
        let rows = [
            (none(), Scan::All, ["of_main_account", "of_account"]),
            (status(ConversationStatus::Open), Scan::All, ["of_main_account", "of_account"]),
            (
                status(ConversationStatus::Archived),
                Scan::Status(ConversationStatus::Archived),
                ["put_away", "put_away_of_account"],
            ),
            (
                ConversationFilter { unread: Some(true), ..none() },
                Scan::RowError,
                ["unread", "unread_of_account"],
            ),
            (
                ConversationFilter { unread: Some(false), ..none() },
                Scan::All,
                ["of_main_account", "of_account"],
            ),
            (
                ConversationFilter { number: number(), ..none() },
                Scan::Number,
                ["of_number", "of_number_of_account"],
            ),
            (
                ConversationFilter { number: number(), unread: Some(true), agent, ..none() },
                Scan::Number,
                ["of_number", "of_number_of_account"],
            ),
            (
                ConversationFilter { agent, ..none() },
                Scan::Agent(Uuid::from_u128(1)),
                ["of_agent", "of_agent"],
            ),
            (ConversationFilter { agent, ..none() }, Scan::All, ["of_main_account", "of_account"]),
            (
                ConversationFilter {
                    assignee: Some(AssigneeFilter::Person(Uuid::from_u128(1))),
                    ..none()
                },
                Scan::Assignee(Uuid::from_u128(1)),
                ["of_assignee", "of_assignee"],
            ),
            (
                ConversationFilter { assignee: Some(AssigneeFilter::Unassigned), ..none() },
                Scan::All,
                ["of_main_account", "of_account"],
            ),
            (search("a word"), Scan::All, ["of_main_account", "of_account"]),
            (search("+91 98765"), Scan::Users, ["of_user", "of_user_of_account"]),
        ];
        for (filter, scan, indexes) in &rows {
            for (scope, index) in ["MA1", "SA1"].map(|id| Scope::of(id.into())).iter().zip(indexes)
            {
                let mut explain = scan.query("EXPLAIN QUERY PLAN ", scope, filter, 50);
                let plan = explain.build().fetch_all(&store.shared.read).await.unwrap();
                let plan: Vec<String> =
                    plan.iter().map(|row| row.try_get::<String, _>("detail").unwrap()).collect();
                let by = format!("SEARCH c USING INDEX conversations_{index} (");
                assert!(
                    plan.iter().any(|line| line.starts_with(&by)),
                    "{filter:?} {scope:?} {index}: {plan:?}"
                );
                // If rows are checked, only the matching ones are sorted.
                let sorts = plan.iter().filter(|line| line.contains("TEMP B-TREE")).count();
                assert!(
                    sorts <= usize::from(scan.has_unindexed_conditions(filter)),
                    "{filter:?} {scope:?}: {plan:?}"
                );
                assert!(
                    !plan.iter().any(|line| line.starts_with("SCAN conversations")),
                    "{plan:?}"
                );
            }
        }
        store.close().await;
    }

    /// The counts and the deletion of conversations read the indexes of the lists.
    #[tokio::test]
    async fn counts_and_deletion_of_conversations_read_an_index() {
        if crate::testing::skipped_on_postgres() {
            return;
        }
        const EXPLAIN: &str = "EXPLAIN QUERY PLAN ";
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let number = E164::parse("918035737458").unwrap();
        let times = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let mut rows = vec![(
            QueryBuilder::new(format!("{EXPLAIN}{DELETE_EMPTY}")),
            "SEARCH c USING COVERING INDEX conversations_of_main_account (main_auth_id=? AND last_us<?)",
        )];
        for (id, unread, open) in [
            ("MA1", "unread (main_auth_id=?)", "of_number (main_auth_id=? AND number=?)"),
            (
                "SA1",
                "unread_of_account (auth_id=?)",
                "of_number_of_account (auth_id=? AND number=?)",
            ),
        ] {
            let scope = Scope::of(id.into());
            let two = [number.clone(), number.clone()];
            rows.extend([
                (unread_query(EXPLAIN, &scope, 100), unread),
                (open_query(EXPLAIN, &scope, &two), open),
                (
                    count_query(EXPLAIN, &scope, times, 100),
                    "messages_came (came_us>? AND came_us<?)",
                ),
            ]);
        }
        for (mut explain, by) in rows {
            let plan = explain.build().fetch_all(&store.shared.read).await.unwrap();
            let plan: Vec<String> =
                plan.iter().map(|row| row.try_get::<String, _>("detail").unwrap()).collect();
            assert!(plan.iter().any(|line| line.ends_with(by)), "{by}: {plan:?}");
            assert!(!plan.iter().any(|line| line.starts_with("SCAN c ")), "{plan:?}");
        }
        store.close().await;
    }

    #[tokio::test]
    async fn many_users_with_one_prefix_are_each_on_one_page() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let many = u128::from(ROWS_PER_PAGE) + 200;
        for n in 0..many {
            let pair = Pair {
                conversation: Uuid::from_u128(n),
                account: "MA1".into(),
                main_account: "MA1".into(),
                number: E164::parse("918035737458").unwrap(),
                phone_number_id: "1".into(),
                user: UserName { id: format!("919800{n:06}"), bsuid: None, name: String::new() },
            };
            let at = Timestamp::from_secs(1_000 + i64::try_from(n).unwrap());
            store.conversations().open(pair, Routing::None, at).await.unwrap();
        }
        let scope = Scope::of("MA1".into());
        let (mut seen, mut before) = (std::collections::BTreeSet::new(), None);
        loop {
            let filter = ConversationFilter {
                search: "+91 9800".to_owned(),
                before,
                ..ConversationFilter::default()
            };
            let page = store.conversations().list(&scope, &filter, 100).await.unwrap();
            for one in &page.found {
                assert!(seen.insert(one.pair.user.id.clone()), "twice");
            }
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen.len() as u128, many);
        store.close().await;
    }

    #[test]
    fn search_text_is_escaped() {
        assert_eq!(like("50% O_K\\"), "%50\\% o\\_k\\\\%");
    }

    /// Prints the time that a page takes with a million conversations: `cargo test --lib
    /// a_page_of_a_million -- --ignored --nocapture`.
    #[tokio::test]
    #[ignore = "fills a database of a gigabyte"]
    async fn a_page_of_a_million_conversations_takes_less_than_30_ms() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.db");
        Store::open(&file, Health::new()).await.unwrap().close().await;
        let pool = crate::sql::connect::sqlite(&file, false).unwrap();
        // One in ten belongs to a subaccount. One in a hundred each is unread, archived or routed
        // to an agent.
        let fill = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, name, \
            status, routing, agent, unread, last_text, last_direction, last_us, heard_us, created_us, name_lower, last_lower) \
            WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999) \
            SELECT printf('%08x-0000-4000-8000-%012x', (i * 2654435761) % 4294967296, i), \
            CASE WHEN i % 10 = 0 THEN 'SA1' ELSE 'MA1' END, 'MA1', printf('9180357374%02d', i % 40), \
            printf('10%02d', i % 40), printf('9198%08d', i), 'Name ' || i, \
            CASE WHEN i % 100 = 10 THEN 'archived' ELSE 'open' END, CASE WHEN i % 100 = 20 THEN 'agent' ELSE 'none' END, \
            CASE WHEN i % 100 = 20 THEN '00000000-0000-0000-0000-000000000001' END, i % 100 = 30, 'The last words of ' || i, \
            'inbound', 1790000000000000 + i * 1000, 0, 0, 'name ' || i, 'the last words of ' || i FROM n";
        sql::query(fill).execute(&pool).await.unwrap();
        pool.close().await;
        let store = Store::open(&file, Health::new()).await.unwrap();
        let clock = model::Clock::real();
        let none = ConversationFilter::default;
        let middle = Some((1_790_000_500_000_000, Uuid::nil()));
        let search = |text: &str| ConversationFilter { search: text.to_owned(), ..none() };
        let rows = [
            ("all", none()),
            ("from the middle on", ConversationFilter { before: middle, ..none() }),
            ("open", ConversationFilter { status: Some(ConversationStatus::Open), ..none() }),
            (
                "archived",
                ConversationFilter { status: Some(ConversationStatus::Archived), ..none() },
            ),
            (
                "closed: none",
                ConversationFilter { status: Some(ConversationStatus::Closed), ..none() },
            ),
            ("unread", ConversationFilter { unread: Some(true), ..none() }),
            ("read", ConversationFilter { unread: Some(false), ..none() }),
            (
                "a number's",
                ConversationFilter { number: E164::parse("918035737410").ok(), ..none() },
            ),
            (
                "a number's unread: none",
                ConversationFilter {
                    number: E164::parse("918035737411").ok(),
                    unread: Some(true),
                    ..none()
                },
            ),
            ("an agent's", ConversationFilter { agent: Some(Uuid::from_u128(1)), ..none() }),
            ("a word that is not there", search("nowhere")),
            ("a user", search("+919800123450")),
            ("many users", search("91980")),
        ];
        let mut worst = std::time::Duration::ZERO;
        for scope in ["MA1", "SA1"].map(|id| Scope::of(id.into())) {
            for (name, filter) in &rows {
                let mut took = Vec::new();
                for _ in 0..5 {
                    let begun = clock.now();
                    store.conversations().list(&scope, filter, 50).await.unwrap();
                    took.push(clock.now().saturating_duration_since(begun));
                }
                // The first run reads from disk.
                let median = {
                    took.sort();
                    took[2]
                };
                #[allow(clippy::print_stderr, reason = "prints measurements")]
                let () = eprintln!("{scope:?} {name}: {median:?}, {:?} at most", took[4]);
                worst = worst.max(median);
            }
        }
        assert!(worst < std::time::Duration::from_millis(30), "{worst:?}");
        store.close().await;
    }
}
