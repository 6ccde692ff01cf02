//! Reading rows of either database: a column as text, number, bytes, boolean or JSON.

use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use crate::sql::sqlite::{SqliteRow, SqliteValue};

/// A row of either database.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Selects a column by name or index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ColumnIndex<'a> {
    Name(&'a str),
    Place(usize),
}

impl<'a> From<&'a str> for ColumnIndex<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl From<usize> for ColumnIndex<'_> {
    fn from(place: usize) -> Self {
        Self::Place(place)
    }
}

impl Row {
    /// Returns a column's value.
    ///
    /// # Errors
    /// Fails if the column does not exist, or if its value does not have the type.
    pub(crate) fn try_get<'a, T: Value, I: Into<ColumnIndex<'a>>>(
        &self,
        at: I,
    ) -> Result<T, sqlx::Error> {
        T::get(self, at.into())
    }
}

/// A type that a column can be read as.
pub(crate) trait Value: Sized {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error>;
}

/// A type that a column can be read as, if it is not NULL.
trait Plain: Sized + for<'a> sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> {
    /// Returns `None` if the value has another type.
    fn of(value: &SqliteValue) -> Option<Self>;
}

impl Plain for String {
    fn of(value: &SqliteValue) -> Option<Self> {
        if let SqliteValue::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl Plain for Vec<u8> {
    fn of(value: &SqliteValue) -> Option<Self> {
        if let SqliteValue::Bytes(bytes) = value { Some(bytes.clone()) } else { None }
    }
}

impl Plain for f64 {
    fn of(value: &SqliteValue) -> Option<Self> {
        if let SqliteValue::Real(real) = value { Some(*real) } else { None }
    }
}

/// Returns the value of a column of SQLite. `None` for NULL.
fn sqlite_value<'a>(
    row: &'a SqliteRow,
    at: ColumnIndex<'_>,
) -> Result<Option<&'a SqliteValue>, sqlx::Error> {
    let value = match at {
        ColumnIndex::Name(name) => {
            row.named(name).ok_or_else(|| sqlx::Error::ColumnNotFound(name.to_owned()))
        }
        ColumnIndex::Place(place) => row.at(place).ok_or_else(|| unexpected(at, "not there")),
    };
    Ok(Some(value?).filter(|value| !matches!(value, SqliteValue::Null)))
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Value for Option<$type> {
            fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
                match (row, at) {
                    (Row::Sqlite(row), at) => {
                        let read = |value| {
                            <$type>::of(value).ok_or_else(|| unexpected(at, "of another type"))
                        };
                        sqlite_value(row, at)?.map(read).transpose()
                    }
                    (Row::Postgres(row), ColumnIndex::Name(name)) => row.try_get(name),
                    (Row::Postgres(row), ColumnIndex::Place(place)) => row.try_get(place),
                }
            }
        }

        impl Value for $type {
            fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
                Option::<$type>::get(row, at)?.ok_or_else(|| unexpected(at, "NULL"))
            }
        }
    )*};
}

plain!(String, Vec<u8>, f64);

/// Reads a number from any of PostgreSQL's integer types or its boolean type.
fn number(row: &PgRow, at: ColumnIndex<'_>) -> Result<Option<i64>, sqlx::Error> {
    let place = match at {
        ColumnIndex::Place(place) => place,
        ColumnIndex::Name(name) => row.try_column(name)?.ordinal(),
    };
    let raw = row.try_get_raw(place)?;
    if raw.is_null() {
        return Ok(None);
    }
    match raw.type_info().name() {
        "INT4" => row.try_get::<i32, _>(place).map(|n| Some(i64::from(n))),
        "INT2" => row.try_get::<i16, _>(place).map(|n| Some(i64::from(n))),
        "BOOL" => row.try_get::<bool, _>(place).map(|is| Some(i64::from(is))),
        _ => row.try_get::<i64, _>(place).map(Some),
    }
}

impl Value for Option<i64> {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
        match (row, at) {
            (Row::Sqlite(row), at) => match sqlite_value(row, at)? {
                None => Ok(None),
                Some(SqliteValue::Number(number)) => Ok(Some(*number)),
                Some(_) => Err(unexpected(at, "not a number")),
            },
            (Row::Postgres(row), at) => number(row, at),
        }
    }
}

impl Value for i64 {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
        Option::<i64>::get(row, at)?.ok_or_else(|| unexpected(at, "NULL"))
    }
}

macro_rules! narrow {
    ($($type:ty),*) => {$(
        impl Value for Option<$type> {
            fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
                let number = Option::<i64>::get(row, at)?;
                number.map(|n| <$type>::try_from(n).map_err(|_| unexpected(at, "a number out of range"))).transpose()
            }
        }

        impl Value for $type {
            fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
                Option::<$type>::get(row, at)?.ok_or_else(|| unexpected(at, "NULL"))
            }
        }
    )*};
}

narrow!(u32, i32);

impl Value for bool {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
        i64::get(row, at).map(|n| n != 0)
    }
}

impl<T: DeserializeOwned> Value for Option<Json<T>> {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
        let text = Option::<String>::get(row, at)?;
        let read = |text: String| serde_json::from_str(&text).map(Json);
        text.map(read).transpose().map_err(|e| sqlx::Error::Decode(e.into()))
    }
}

impl<T: DeserializeOwned> Value for Json<T> {
    fn get(row: &Row, at: ColumnIndex<'_>) -> Result<Self, sqlx::Error> {
        Option::<Self>::get(row, at)?.ok_or_else(|| unexpected(at, "NULL"))
    }
}

fn unexpected(at: ColumnIndex<'_>, what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{at:?} is {what}").into())
}

/// A type that a row can be read as.
pub(crate) trait FromRow {
    type Out;
    fn read(row: Row) -> Result<Self::Out, sqlx::Error>;
}

impl FromRow for Row {
    type Out = Row;
    fn read(row: Row) -> Result<Row, sqlx::Error> {
        Ok(row)
    }
}

/// Reads the first column of a row.
pub(crate) struct ScalarRow<T>(std::marker::PhantomData<T>);

impl<T: Value> FromRow for ScalarRow<T> {
    type Out = T;
    fn read(row: Row) -> Result<T, sqlx::Error> {
        row.try_get(0)
    }
}

/// Reads the columns of a row in order.
pub(crate) struct TupleRow<T>(std::marker::PhantomData<T>);

impl<T: Columns> FromRow for TupleRow<T> {
    type Out = T;
    fn read(row: Row) -> Result<T, sqlx::Error> {
        T::columns(&row)
    }
}

/// A tuple of types that columns can be read as.
pub(crate) trait Columns: Sized {
    fn columns(row: &Row) -> Result<Self, sqlx::Error>;
}

macro_rules! tuples {
    ($(($($name:ident $place:literal),+);)*) => {$(
        impl<$($name: Value),+> Columns for ($($name,)+) {
            fn columns(row: &Row) -> Result<Self, sqlx::Error> {
                Ok(($(row.try_get::<$name, _>($place)?,)+))
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
}
