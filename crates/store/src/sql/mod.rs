//! One query interface for SQLite and PostgreSQL: a pool, a connection, a row and a query of either
//! database.
//!
//! Both databases run the same SQL text (`$1`, `ON CONFLICT`, `RETURNING`). The few places where
//! they differ ask for the [`Dialect`]. Values are text, integers, floats and bytes only: booleans
//! are 0 and 1, JSON is text, times are microseconds. The names follow sqlx.

pub(crate) mod connect;
pub(crate) mod errors;
mod row;
mod sqlite;

pub(crate) use self::row::{Row, TupleRow};

use std::borrow::Cow;
use std::fmt::Display;
use std::marker::PhantomData;

use futures_util::TryStreamExt as _;
use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::types::Json;
use sqlx::{Arguments as _, AssertSqlSafe, Either, Executor as _, PgPool};

use self::row::{Columns, FromRow, ScalarRow, Value};
use self::sqlite::{SqliteConn, SqlitePool};

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
            Self::Sqlite(pool) => Conn::Sqlite(pool.acquire().await?),
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

impl Conn {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a write transaction. If `synced`, it is on disk once it is committed.
    pub(crate) async fn begin(&mut self, synced: bool) -> Result<(), sqlx::Error> {
        match (self, synced) {
            (Self::Sqlite(to), _) => to.begin(synced),
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

    /// Runs statements without values, separated by semicolons.
    pub(crate) async fn run_batch(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(to) => to.run_batch(text),
            Self::Postgres(to) => sqlx::raw_sql(text).execute(&mut **to).await.map(drop),
        }
    }

    /// Closes the connection. The pool opens another one when needed.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => {
                connection.close();
                Ok(())
            }
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
            Executor::Pool(Pool::Sqlite(on)) => {
                on.run(self.text, self.args, self.persistent).await?.changed
            }
            Executor::Conn(Conn::Sqlite(on)) => self.run(on)?.changed,
            Executor::Pool(Pool::Postgres(on)) => {
                self.postgres()?.execute(on).await?.rows_affected()
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
        let rows = match on.into() {
            Executor::Pool(Pool::Sqlite(on)) => {
                on.run(self.text, self.args, self.persistent).await?.rows
            }
            Executor::Conn(Conn::Sqlite(on)) => self.run(on)?.rows,
            Executor::Pool(Pool::Postgres(on)) => {
                postgres_rows(self.postgres()?.fetch_all(on).await?)
            }
            Executor::Conn(Conn::Postgres(on)) => {
                postgres_rows(self.postgres()?.fetch_all(&mut **on).await?)
            }
        };
        rows.into_iter().map(O::read).collect()
    }

    /// Runs the query and returns the first row, if any.
    pub(crate) async fn fetch_optional<'a>(
        self,
        on: impl Into<Executor<'a>>,
    ) -> Result<Option<O::Out>, sqlx::Error> {
        let row = match on.into() {
            Executor::Pool(Pool::Sqlite(on)) => {
                on.run(self.text, self.args, self.persistent).await?.rows.into_iter().next()
            }
            Executor::Conn(Conn::Sqlite(on)) => self.run(on)?.rows.into_iter().next(),
            Executor::Pool(Pool::Postgres(on)) => {
                self.postgres()?.fetch_optional(on).await?.map(Row::Postgres)
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

    fn run(&self, on: &mut SqliteConn) -> Result<Outcome<Row>, sqlx::Error> {
        on.run(&self.text, &self.args, self.persistent)
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

fn postgres_rows(rows: Vec<sqlx::postgres::PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
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

    /// Pushes ` IN (…)` with these values. There must be at least one.
    pub(crate) fn push_in<B: Bind>(&mut self, values: impl IntoIterator<Item = B>) -> &mut Self {
        self.push(" IN (");
        let mut list = self.list();
        for value in values {
            list.push_bind(value);
        }
        self.push(")")
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
/// different texts and each stays prepared.
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

/// The result of a statement.
pub(crate) struct Outcome<T> {
    /// Number of changed rows.
    pub(crate) changed: u64,
    /// The returned rows.
    pub(crate) rows: Vec<T>,
}

/// Runs statements one after another, usually the same text with different values.
pub(crate) async fn execute_each<O: FromRow>(
    to: &mut Conn,
    queries: impl IntoIterator<Item = Query<O>>,
) -> Result<Vec<Outcome<O::Out>>, sqlx::Error> {
    let mut outcomes = Vec::new();
    for query in queries {
        let Outcome { changed, rows } = match &mut *to {
            Conn::Sqlite(to) => query.run(to)?,
            Conn::Postgres(to) => {
                let mut outcome = Outcome { changed: 0, rows: Vec::new() };
                let mut steps = (&mut **to).fetch_many(query.postgres()?);
                while let Some(step) = steps.try_next().await? {
                    match step {
                        Either::Left(done) => outcome.changed = done.rows_affected(),
                        Either::Right(row) => outcome.rows.push(Row::Postgres(row)),
                    }
                }
                outcome
            }
        };
        let rows: Result<_, sqlx::Error> = rows.into_iter().map(O::read).collect();
        outcomes.push(Outcome { changed, rows: rows? });
    }
    Ok(outcomes)
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
