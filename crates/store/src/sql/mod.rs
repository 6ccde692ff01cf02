//! The two databases behind one set of words: a pool, a connection, a row and a query that are SQLite's or PostgreSQL's.
//!
//! One text of SQL serves both (`$1`, `ON CONFLICT`, `RETURNING`); what differs is asked of [`Dialect`], at the few places
//! where it does. Values are texts, numbers and bytes and nothing else: flags are 0 and 1, JSON is text, times are
//! microseconds. The names are those of sqlx, so that a query reads as one of its own.

pub(crate) mod connect;
pub(crate) mod fault;
mod row;

pub(crate) use self::row::{All, Row};

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

use self::row::{Columns, FromRow, One, Value};

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Connections to a database; clones share them.
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
            Self::Sqlite(pool) => Conn::Sqlite(Lite {
                connection: pool.acquire().await?,
                synced: None,
                ahead: Vec::new(),
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
    Sqlite(Lite),
    Postgres(PoolConnection<Postgres>),
}

/// One to SQLite.
pub(crate) struct Lite {
    connection: PoolConnection<Sqlite>,
    /// Whether what it commits is synced; none: it was not told yet.
    synced: Option<bool>,
    /// Statements that go to its thread with the next one, and in front of it.
    ahead: Vec<Query<Row>>,
}

/// Without what is to be written.
impl std::fmt::Debug for Lite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lite").field("synced", &self.synced).finish_non_exhaustive()
    }
}

impl Lite {
    /// What each of the query's statements came to.
    async fn run<O: FromRow>(&mut self, query: Query<O>) -> Result<Vec<Outcome<Row>>, sqlx::Error> {
        let before = self.ahead.len();
        let Some(all) = together(self.ahead.drain(..).chain([query.raw()])) else {
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

    /// Begins a transaction that writes; a synced one is on the disk when it is over (R11). SQLite is told of it with the
    /// first statement.
    pub(crate) async fn begin(&mut self, synced: bool) -> Result<(), sqlx::Error> {
        // What decides about syncing can't be changed inside SQLite's transaction, and only there in PostgreSQL's.
        match (&mut *self, synced) {
            (Self::Sqlite(to), _) => {
                if to.synced.replace(synced) != Some(synced) {
                    let how = if synced {
                        "PRAGMA synchronous = FULL"
                    } else {
                        "PRAGMA synchronous = NORMAL"
                    };
                    to.ahead.push(query(how));
                }
                to.ahead.push(query("BEGIN IMMEDIATE"));
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

    /// Ends it. A transaction that failed ends with its connection, which is given up.
    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        query("COMMIT").execute(self).await.map(drop)
    }

    /// Carries it out with the next statement of the transaction, which may be its end.
    pub(crate) async fn later(&mut self, query: Query<Row>) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(to) => {
                to.ahead.push(query);
                Ok(())
            }
            Self::Postgres(_) => query.execute(self).await.map(drop),
        }
    }

    /// Gives it up; the pool makes another one.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(lite) => lite.connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
    }
}

/// Where a query runs.
pub(crate) enum On<'a> {
    Pool(&'a Pool),
    Conn(&'a mut Conn),
}

impl<'a> From<&'a Pool> for On<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Conn> for On<'a> {
    fn from(connection: &'a mut Conn) -> Self {
        Self::Conn(connection)
    }
}

/// A value that goes with a query; the inner none is NULL of that type.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Real(Option<f64>),
}

/// What can go with a query.
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
        // Words and numbers: there is nothing in them that JSON could not say.
        Arg::Text(serde_json::to_string(&self.0).ok())
    }
}

impl<T: Serialize> Bind for Option<Json<T>> {
    fn arg(self) -> Arg {
        Arg::Text(self.and_then(|json| serde_json::to_string(&json.0).ok()))
    }
}

/// A query whose rows are read as `O`.
pub(crate) struct Query<O> {
    text: Cow<'static, str>,
    args: Vec<Arg>,
    persistent: bool,
    rows: PhantomData<fn() -> O>,
}

/// A query that gives rows, or none.
pub(crate) fn query(text: impl Into<Cow<'static, str>>) -> Query<Row> {
    Query::new(text.into(), Vec::new())
}

/// A query whose rows are tuples.
pub(crate) fn query_as<T: Columns>(text: impl Into<Cow<'static, str>>) -> Query<All<T>> {
    Query::new(text.into(), Vec::new())
}

/// A query whose rows have one column.
pub(crate) fn query_scalar<T: Value>(text: impl Into<Cow<'static, str>>) -> Query<One<T>> {
    Query::new(text.into(), Vec::new())
}

impl<O: FromRow> Query<O> {
    fn new(text: Cow<'static, str>, args: Vec<Arg>) -> Self {
        Self { text, args, persistent: true, rows: PhantomData }
    }

    /// The value of the next `$n`.
    pub(crate) fn bind(mut self, value: impl Bind) -> Self {
        self.args.push(value.arg());
        self
    }

    /// Whether the connection keeps it prepared.
    pub(crate) fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Carries it out; how many rows it changed.
    pub(crate) async fn execute<'a>(self, on: impl Into<On<'a>>) -> Result<Done, sqlx::Error> {
        Ok(Done(match on.into() {
            On::Pool(Pool::Sqlite(on)) => self.sqlite()?.execute(on).await?.rows_affected(),
            On::Pool(Pool::Postgres(on)) => self.postgres()?.execute(on).await?.rows_affected(),
            On::Conn(Conn::Sqlite(on)) => {
                on.run(self).await?.iter().map(|outcome| outcome.changed).sum()
            }
            On::Conn(Conn::Postgres(on)) => {
                self.postgres()?.execute(&mut **on).await?.rows_affected()
            }
        }))
    }

    /// All rows.
    pub(crate) async fn fetch_all<'a>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Vec<O::Out>, sqlx::Error> {
        let (lite, post) = match on.into() {
            On::Pool(Pool::Sqlite(on)) => (self.sqlite()?.fetch_all(on).await?, Vec::new()),
            On::Pool(Pool::Postgres(on)) => (Vec::new(), self.postgres()?.fetch_all(on).await?),
            On::Conn(Conn::Sqlite(on)) => {
                return on
                    .run(self)
                    .await?
                    .into_iter()
                    .flat_map(|outcome| outcome.rows)
                    .map(O::read)
                    .collect();
            }
            On::Conn(Conn::Postgres(on)) => {
                (Vec::new(), self.postgres()?.fetch_all(&mut **on).await?)
            }
        };
        lite.into_iter()
            .map(Row::Sqlite)
            .chain(post.into_iter().map(Row::Postgres))
            .map(O::read)
            .collect()
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional<'a>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Option<O::Out>, sqlx::Error> {
        let row = match on.into() {
            On::Pool(Pool::Sqlite(on)) => self.sqlite()?.fetch_optional(on).await?.map(Row::Sqlite),
            On::Pool(Pool::Postgres(on)) => {
                self.postgres()?.fetch_optional(on).await?.map(Row::Postgres)
            }
            On::Conn(Conn::Sqlite(on)) => {
                on.run(self).await?.into_iter().flat_map(|outcome| outcome.rows).next()
            }
            On::Conn(Conn::Postgres(on)) => {
                self.postgres()?.fetch_optional(&mut **on).await?.map(Row::Postgres)
            }
        };
        row.map(O::read).transpose()
    }

    /// The first row.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn fetch_one<'a>(self, on: impl Into<On<'a>>) -> Result<O::Out, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// With its rows as they come.
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
                // A text of PostgreSQL can't have it.
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

/// What became of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done(u64);

impl Done {
    pub(crate) fn rows_affected(self) -> u64 {
        self.0
    }
}

/// A query that is put together. What is pushed is code of ours; values are bound.
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
        // A String takes all that is written.
        let _ = write!(self.text, "{text}");
        self
    }

    pub(crate) fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        self.args.push(value.arg());
        let n = self.args.len();
        self.push(format_args!("${n}"))
    }

    /// `VALUES (…), (…)`: a row for each item.
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

    /// Values with commas between them.
    pub(crate) fn list(&mut self) -> Values<'_> {
        Values { to: self, first: true }
    }

    /// The query; nothing is left behind to be built again.
    pub(crate) fn build(&mut self) -> Query<Row> {
        self.of()
    }

    pub(crate) fn build_query_as<T: Columns>(&mut self) -> Query<All<T>> {
        self.of()
    }

    pub(crate) fn build_query_scalar<T: Value>(&mut self) -> Query<One<T>> {
        self.of()
    }

    fn of<O: FromRow>(&mut self) -> Query<O> {
        Query::new(std::mem::take(&mut self.text).into(), std::mem::take(&mut self.args))
    }
}

/// Values of one statement of [`insert_rows`].
const VALUES_MAX: usize = 192;

/// `INSERT` of any number of rows, `columns` values each, between `head` and `tail`: in statements of few shapes, a power
/// of two of rows each. The connection keeps each of them prepared; and to read and bind one statement of all the rows takes
/// SQLite the square of their values, for it looks each `$n` up in a list.
pub(crate) async fn insert_rows<T>(
    to: &mut Conn,
    what: (&str, usize, &str),
    rows: &[T],
    row: impl FnMut(Values<'_>, &T),
) -> Result<(), sqlx::Error> {
    for insert in inserting(what, rows, row) {
        insert.execute(&mut *to).await?;
    }
    Ok(())
}

/// The statements of [`insert_rows`].
pub(crate) fn inserting<T>(
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

/// Statements that go to SQLite's thread at a time: the connection keeps each number of them prepared.
const TOGETHER: usize = 6;

/// What one of several statements came to.
pub(crate) struct Outcome<T> {
    /// Rows that it changed.
    pub(crate) changed: u64,
    /// Rows that it gave.
    pub(crate) rows: Vec<T>,
}

/// Carries out the same statement with other values, one after another. The way to SQLite's thread and back takes longer
/// than most statements do, so some go there together; to PostgreSQL they go one by one.
pub(crate) async fn each<O: FromRow>(
    to: &mut Conn,
    queries: impl IntoIterator<Item = Query<O>>,
) -> Result<Vec<Outcome<O::Out>>, sqlx::Error> {
    let mut queries = queries.into_iter();
    let mut outcomes = Vec::new();
    loop {
        let most = match to.dialect() {
            Dialect::Sqlite => TOGETHER,
            Dialect::Postgres => 1,
        };
        let Some(query) = together(queries.by_ref().take(most)) else { return Ok(outcomes) };
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

/// Several as one text.
fn together<O>(mut queries: impl Iterator<Item = Query<O>>) -> Option<Query<O>> {
    let mut all = queries.next()?;
    for query in queries {
        let text = all.text.to_mut();
        text.push_str("; ");
        push_behind(text, &query.text, all.args.len());
        all.args.extend(query.args);
        all.persistent &= query.persistent;
    }
    Some(all)
}

/// A statement whose `$1` is the value behind so many others.
fn push_behind(to: &mut String, text: &str, others: usize) {
    use std::fmt::Write as _;
    let mut pieces = text.split('$');
    to.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default() + others;
        // A String takes all that is written.
        let _ = write!(to, "${number}{rest}");
    }
}

/// A row, or a list, that is being put together.
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
    use crate::sql::query;
    use crate::sql::together;

    #[test]
    fn statements_that_go_together_keep_their_own_values() {
        let one = || query("UPDATE t SET a = $2, b = $2 WHERE c = $1").bind(1_i64).bind("x");
        let all = together([one(), one(), one()].into_iter()).unwrap();
        assert_eq!(
            all.text,
            "UPDATE t SET a = $2, b = $2 WHERE c = $1; UPDATE t SET a = $4, b = $4 WHERE c = $3; \
             UPDATE t SET a = $6, b = $6 WHERE c = $5"
        );
        assert_eq!(all.args.len(), 6);
        assert!(together(std::iter::empty::<super::Query<super::Row>>()).is_none());
        assert_eq!(
            together(std::iter::once(QueryBuilder::new("SELECT 1").build())).unwrap().text,
            "SELECT 1"
        );
    }
}
