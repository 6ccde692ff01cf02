//! One query interface for SQLite and PostgreSQL: a pool, a connection, a row and a query of either
//! database.
//!
//! Both databases run the same SQL text (`$1`, `ON CONFLICT`, `RETURNING`). The few places where
//! they differ ask for the [`Dialect`]. Values are text, integers, floats and bytes only: booleans
//! are 0 and 1, JSON is text, times are microseconds. The names follow sqlx.

pub(crate) mod connect;
pub(crate) mod errors;
mod row;

pub(crate) use self::row::{Row, TupleRow};

use std::borrow::Cow;
use std::fmt::Display;
use std::marker::PhantomData;

use futures_util::TryStreamExt as _;
use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::sqlite::SqliteArguments;
use sqlx::types::Json;
use sqlx::{Arguments as _, AssertSqlSafe, Either, Executor as _, PgPool, Sqlite, SqlitePool};

use self::row::{Columns, FromRow, ScalarRow, Value};

/// The SQL dialect of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// A pool of connections. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(crate) async fn acquire(&self) -> Result<Conn, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => Conn::Sqlite(SqliteConn {
                connection: pool.acquire().await?,
                synced: None,
                queued: Vec::new(),
            }),
            Self::Postgres(pool) => Conn::Postgres(pool.acquire().await?),
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) enum Conn {
    Sqlite(SqliteConn),
    Postgres(PoolConnection<Postgres>),
}

/// A connection to SQLite.
pub(crate) struct SqliteConn {
    connection: PoolConnection<Sqlite>,
    /// The current value of `PRAGMA synchronous`: whether commits are synced. `None` if not set
    /// yet.
    synced: Option<bool>,
    /// Statements to be sent to SQLite's thread together with the next one, before it.
    queued: Vec<Query<Row>>,
}

/// Omits the queued statements, which contain data.
impl std::fmt::Debug for SqliteConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lite").field("synced", &self.synced).finish_non_exhaustive()
    }
}

impl SqliteConn {
    /// Runs the query after the queued statements. Returns the outcome of each of its statements.
    async fn run<O: FromRow>(&mut self, query: Query<O>) -> Result<Vec<Outcome<Row>>, sqlx::Error> {
        let before = self.queued.len();
        let Some(all) = join(self.queued.drain(..).chain([query.raw()])) else {
            return Ok(Vec::new());
        };
        let (mut outcomes, mut rows) = (Vec::new(), Vec::new());
        let mut steps = (&mut *self.connection).fetch_many(all.sqlite()?);
        while let Some(step) = steps.try_next().await? {
            match step {
                Either::Left(done) => {
                    outcomes.push(Outcome {
                        changed: done.rows_affected(),
                        rows: std::mem::take(&mut rows),
                    });
                }
                Either::Right(row) => rows.push(Row::Sqlite(row)),
            }
        }
        outcomes.drain(..before.min(outcomes.len()));
        Ok(outcomes)
    }
}

impl Conn {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a write transaction. If `synced`, it is on disk once it is committed. On SQLite, this
    /// takes effect with the first statement.
    pub(crate) async fn begin(&mut self, synced: bool) -> Result<(), sqlx::Error> {
        // SQLite can change its sync setting only outside a transaction, PostgreSQL with `SET
        // LOCAL` only inside.
        match (&mut *self, synced) {
            (Self::Sqlite(to), _) => {
                if to.synced.replace(synced) != Some(synced) {
                    let how = if synced {
                        "PRAGMA synchronous = FULL"
                    } else {
                        "PRAGMA synchronous = NORMAL"
                    };
                    to.queued.push(query(how));
                }
                to.queued.push(query("BEGIN IMMEDIATE"));
                Ok(())
            }
            (Self::Postgres(to), true) => sqlx::raw_sql("BEGIN").execute(&mut **to).await.map(drop),
            (Self::Postgres(to), false) => {
                sqlx::raw_sql("BEGIN; SET LOCAL synchronous_commit = off")
                    .execute(&mut **to)
                    .await
                    .map(drop)
            }
        }
    }

    /// Commits the transaction. A failed transaction is not rolled back explicitly: the caller
    /// closes the connection.
    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        query("COMMIT").execute(self).await.map(drop)
    }

    /// Runs the query together with the next statement of the transaction, which may be the commit.
    pub(crate) async fn execute_later(&mut self, query: Query<Row>) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(to) => {
                to.queued.push(query);
                Ok(())
            }
            Self::Postgres(_) => query.execute(self).await.map(drop),
        }
    }

    /// Closes the connection. The pool opens another one when needed.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(lite) => lite.connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
    }
}

/// Where a query runs.
pub(crate) enum Executor<'a> {
    Pool(&'a Pool),
    Conn(&'a mut Conn),
}

impl<'a> From<&'a Pool> for Executor<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Conn> for Executor<'a> {
    fn from(connection: &'a mut Conn) -> Self {
        Self::Conn(connection)
    }
}

/// A bound value. `None` is NULL of that type.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Real(Option<f64>),
}

/// A type that can be bound to a query.
pub(crate) trait Bind {
    fn arg(self) -> Arg;
}

macro_rules! binds {
    ($($type:ty => $kind:ident, $value:ident => $how:expr;)*) => {$(
        impl Bind for $type {
            fn arg(self) -> Arg {
                let $value = self;
                Arg::$kind(Some($how))
            }
        }

        impl Bind for Option<$type> {
            fn arg(self) -> Arg {
                Arg::$kind(self.map(|$value| $how))
            }
        }
    )*};
}

binds! {
    &str => Text, value => value.to_owned();
    String => Text, value => value;
    &String => Text, value => value.clone();
    i64 => Number, value => value;
    i32 => Number, value => i64::from(value);
    u32 => Number, value => i64::from(value);
    bool => Number, value => i64::from(value);
    Vec<u8> => Bytes, value => value;
    f64 => Real, value => value;
}

impl Bind for &Option<String> {
    fn arg(self) -> Arg {
        Arg::Text(self.clone())
    }
}

impl<T: Serialize> Bind for Json<T> {
    fn arg(self) -> Arg {
        // The types used here always serialize.
        Arg::Text(serde_json::to_string(&self.0).ok())
    }
}

impl<T: Serialize> Bind for Option<Json<T>> {
    fn arg(self) -> Arg {
        Arg::Text(self.and_then(|json| serde_json::to_string(&json.0).ok()))
    }
}

/// A query that returns rows of type `O`.
pub(crate) struct Query<O> {
    text: Cow<'static, str>,
    args: Vec<Arg>,
    persistent: bool,
    rows: PhantomData<fn() -> O>,
}

/// A query without rows, or with rows of any shape.
pub(crate) fn query(text: impl Into<Cow<'static, str>>) -> Query<Row> {
    Query::new(text.into(), Vec::new())
}

/// A query that returns its rows as tuples.
pub(crate) fn query_as<T: Columns>(text: impl Into<Cow<'static, str>>) -> Query<TupleRow<T>> {
    Query::new(text.into(), Vec::new())
}

/// A query that returns rows with one column.
pub(crate) fn query_scalar<T: Value>(text: impl Into<Cow<'static, str>>) -> Query<ScalarRow<T>> {
    Query::new(text.into(), Vec::new())
}

impl<O: FromRow> Query<O> {
    fn new(text: Cow<'static, str>, args: Vec<Arg>) -> Self {
        Self { text, args, persistent: true, rows: PhantomData }
    }

    /// Binds the next `$n`.
    pub(crate) fn bind(mut self, value: impl Bind) -> Self {
        self.args.push(value.arg());
        self
    }

    /// Sets whether the connection caches the prepared statement. The default is `true`.
    pub(crate) fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Runs the query. Returns the number of changed rows.
    pub(crate) async fn execute<'a>(
        self,
        on: impl Into<Executor<'a>>,
    ) -> Result<QueryResult, sqlx::Error> {
        Ok(QueryResult(match on.into() {
            Executor::Pool(Pool::Sqlite(on)) => self.sqlite()?.execute(on).await?.rows_affected(),
            Executor::Pool(Pool::Postgres(on)) => {
                self.postgres()?.execute(on).await?.rows_affected()
            }
            Executor::Conn(Conn::Sqlite(on)) => {
                on.run(self).await?.iter().map(|outcome| outcome.changed).sum()
            }
            Executor::Conn(Conn::Postgres(on)) => {
                self.postgres()?.execute(&mut **on).await?.rows_affected()
            }
        }))
    }

    /// Runs the query and returns all rows.
    pub(crate) async fn fetch_all<'a>(
        self,
        on: impl Into<Executor<'a>>,
    ) -> Result<Vec<O::Out>, sqlx::Error> {
        let (lite, post) = match on.into() {
            Executor::Pool(Pool::Sqlite(on)) => (self.sqlite()?.fetch_all(on).await?, Vec::new()),
            Executor::Pool(Pool::Postgres(on)) => {
                (Vec::new(), self.postgres()?.fetch_all(on).await?)
            }
            Executor::Conn(Conn::Sqlite(on)) => {
                return on
                    .run(self)
                    .await?
                    .into_iter()
                    .flat_map(|outcome| outcome.rows)
                    .map(O::read)
                    .collect();
            }
            Executor::Conn(Conn::Postgres(on)) => {
                (Vec::new(), self.postgres()?.fetch_all(&mut **on).await?)
            }
        };
        lite.into_iter()
            .map(Row::Sqlite)
            .chain(post.into_iter().map(Row::Postgres))
            .map(O::read)
            .collect()
    }

    /// Runs the query and returns the first row, if any.
    pub(crate) async fn fetch_optional<'a>(
        self,
        on: impl Into<Executor<'a>>,
    ) -> Result<Option<O::Out>, sqlx::Error> {
        let row = match on.into() {
            Executor::Pool(Pool::Sqlite(on)) => {
                self.sqlite()?.fetch_optional(on).await?.map(Row::Sqlite)
            }
            Executor::Pool(Pool::Postgres(on)) => {
                self.postgres()?.fetch_optional(on).await?.map(Row::Postgres)
            }
            Executor::Conn(Conn::Sqlite(on)) => {
                on.run(self).await?.into_iter().flat_map(|outcome| outcome.rows).next()
            }
            Executor::Conn(Conn::Postgres(on)) => {
                self.postgres()?.fetch_optional(&mut **on).await?.map(Row::Postgres)
            }
        };
        row.map(O::read).transpose()
    }

    /// Runs the query and returns the first row.
    ///
    /// # Errors
    /// Fails with [`sqlx::Error::RowNotFound`] if the result is empty.
    pub(crate) async fn fetch_one<'a>(
        self,
        on: impl Into<Executor<'a>>,
    ) -> Result<O::Out, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The same query with its rows unread.
    fn raw(self) -> Query<Row> {
        Query { text: self.text, args: self.args, persistent: self.persistent, rows: PhantomData }
    }

    fn sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
        let mut args = SqliteArguments::default();
        for arg in self.args {
            let added = match arg {
                Arg::Text(value) => args.add(value),
                Arg::Number(value) => args.add(value),
                Arg::Bytes(value) => args.add(value),
                Arg::Real(value) => args.add(value),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(AssertSqlSafe(self.text), args).persistent(self.persistent))
    }

    fn postgres(self) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, sqlx::Error> {
        let mut args = PgArguments::default();
        for arg in self.args {
            let added = match arg {
                // PostgreSQL's text type can't hold NUL.
                Arg::Text(value) => args.add(value.map(|text| match text.contains('\0') {
                    true => text.replace('\0', "\u{fffd}"),
                    false => text,
                })),
                Arg::Number(value) => args.add(value),
                Arg::Bytes(value) => args.add(value),
                Arg::Real(value) => args.add(value),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(AssertSqlSafe(self.text), args).persistent(self.persistent))
    }
}

/// The result of [`Query::execute`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryResult(u64);

impl QueryResult {
    pub(crate) fn rows_affected(self) -> u64 {
        self.0
    }
}

/// A query that is built at run time. The text pushed must come from this crate. Values are bound.
pub(crate) struct QueryBuilder {
    text: String,
    args: Vec<Arg>,
}

impl QueryBuilder {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), args: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: impl Display) -> &mut Self {
        use std::fmt::Write as _;
        // Writing to a `String` never fails.
        let _ = write!(self.text, "{text}");
        self
    }

    pub(crate) fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        self.args.push(value.arg());
        let n = self.args.len();
        self.push(format_args!("${n}"))
    }

    /// Pushes `VALUES (…), (…)` with one row per item.
    pub(crate) fn push_values<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut row: impl FnMut(Values<'_>, T),
    ) -> &mut Self {
        self.push("VALUES ");
        for (n, item) in items.into_iter().enumerate() {
            self.push(if n == 0 { "(" } else { ", (" });
            row(self.list(), item);
            self.push(")");
        }
        self
    }

    /// Starts a list of values separated by commas.
    pub(crate) fn list(&mut self) -> Values<'_> {
        Values { to: self, first: true }
    }

    /// Builds the query and leaves the builder empty.
    pub(crate) fn build(&mut self) -> Query<Row> {
        self.take()
    }

    pub(crate) fn build_query_as<T: Columns>(&mut self) -> Query<TupleRow<T>> {
        self.take()
    }

    pub(crate) fn build_query_scalar<T: Value>(&mut self) -> Query<ScalarRow<T>> {
        self.take()
    }

    fn take<O: FromRow>(&mut self) -> Query<O> {
        Query::new(std::mem::take(&mut self.text).into(), std::mem::take(&mut self.args))
    }
}

/// Maximum number of values in one statement of [`insert_rows`].
const VALUES_MAX: usize = 192;

/// Inserts any number of rows, with `columns` values each, between the texts `head` and `tail`.
///
/// The rows are split into statements of a power of two of rows each, so that there are few
/// different texts and each stays prepared. A single statement would also be slow: SQLite looks up
/// each `$n` in a list, which makes parsing and binding quadratic in the number of values.
pub(crate) async fn insert_rows<T>(
    to: &mut Conn,
    what: (&str, usize, &str),
    rows: &[T],
    row: impl FnMut(Values<'_>, &T),
) -> Result<(), sqlx::Error> {
    for insert in insert_statements(what, rows, row) {
        insert.execute(&mut *to).await?;
    }
    Ok(())
}

/// The statements of [`insert_rows`].
pub(crate) fn insert_statements<T>(
    (head, columns, tail): (&str, usize, &str),
    rows: &[T],
    mut row: impl FnMut(Values<'_>, &T),
) -> Vec<Query<Row>> {
    let most = (VALUES_MAX / columns.max(1)).max(1);
    let mut left = rows;
    let mut statements = Vec::new();
    while !left.is_empty() {
        let so_many = left.len().min(most);
        let (now, later) = left.split_at(1 << so_many.ilog2());
        left = later;
        let mut insert = QueryBuilder::new(head);
        insert.push_values(now, &mut row);
        statements.push(insert.push(tail).build());
    }
    statements
}

/// Number of statements in one message to SQLite's thread. The connection caches a prepared
/// statement for each number up to this one.
const MAX_JOINED: usize = 6;

/// The outcome of one of several statements.
pub(crate) struct Outcome<T> {
    /// Number of changed rows.
    pub(crate) changed: u64,
    /// The rows that it returned.
    pub(crate) rows: Vec<T>,
}

/// Runs statements one after another, usually the same text with different values.
///
/// A round trip to SQLite's thread takes longer than most statements, so several are sent together.
/// PostgreSQL gets them one by one.
pub(crate) async fn execute_each<O: FromRow>(
    to: &mut Conn,
    queries: impl IntoIterator<Item = Query<O>>,
) -> Result<Vec<Outcome<O::Out>>, sqlx::Error> {
    let mut queries = queries.into_iter();
    let mut outcomes = Vec::new();
    loop {
        let most = match to.dialect() {
            Dialect::Sqlite => MAX_JOINED,
            Dialect::Postgres => 1,
        };
        let Some(query) = join(queries.by_ref().take(most)) else { return Ok(outcomes) };
        let came = match &mut *to {
            Conn::Sqlite(to) => to.run(query).await?,
            Conn::Postgres(to) => {
                let mut outcome = Outcome { changed: 0, rows: Vec::new() };
                let mut steps = (&mut **to).fetch_many(query.postgres()?);
                while let Some(step) = steps.try_next().await? {
                    match step {
                        Either::Left(done) => outcome.changed = done.rows_affected(),
                        Either::Right(row) => outcome.rows.push(Row::Postgres(row)),
                    }
                }
                vec![outcome]
            }
        };
        for Outcome { changed, rows } in came {
            let rows: Result<_, sqlx::Error> = rows.into_iter().map(O::read).collect();
            outcomes.push(Outcome { changed, rows: rows? });
        }
    }
}

/// Joins several queries into one text.
fn join<O>(mut queries: impl Iterator<Item = Query<O>>) -> Option<Query<O>> {
    let mut all = queries.next()?;
    for query in queries {
        let text = all.text.to_mut();
        text.push_str("; ");
        push_renumbered(text, &query.text, all.args.len());
        all.args.extend(query.args);
        all.persistent &= query.persistent;
    }
    Some(all)
}

/// Appends a statement, with its `$n` renumbered to follow `others` other values.
fn push_renumbered(to: &mut String, text: &str, others: usize) {
    use std::fmt::Write as _;
    let mut pieces = text.split('$');
    to.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default() + others;
        // Writing to a `String` never fails.
        let _ = write!(to, "${number}{rest}");
    }
}

/// A row or list of values under construction.
pub(crate) struct Values<'a> {
    to: &'a mut QueryBuilder,
    first: bool,
}

impl Values<'_> {
    pub(crate) fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        if !std::mem::take(&mut self.first) {
            self.to.push(", ");
        }
        self.to.push_bind(value);
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::QueryBuilder;
    use crate::sql::join;
    use crate::sql::query;

    #[test]
    fn joined_statements_keep_their_own_values() {
        let one = || query("UPDATE t SET a = $2, b = $2 WHERE c = $1").bind(1_i64).bind("x");
        let all = join([one(), one(), one()].into_iter()).unwrap();
        assert_eq!(
            all.text,
            "UPDATE t SET a = $2, b = $2 WHERE c = $1; UPDATE t SET a = $4, b = $4 WHERE c = $3; \
             UPDATE t SET a = $6, b = $6 WHERE c = $5"
        );
        assert_eq!(all.args.len(), 6);
        assert!(join(std::iter::empty::<super::Query<super::Row>>()).is_none());
        assert_eq!(
            join(std::iter::once(QueryBuilder::new("SELECT 1").build())).unwrap().text,
            "SELECT 1"
        );
    }
}
