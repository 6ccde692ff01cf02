//! Pages of lists that are newest first.

use uuid::Uuid;

use crate::sql::QueryBuilder;
use model::Timestamp;

/// The order of a list: by time, newest first, and by id among rows of the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewestFirst {
    /// The column with the time of a row, in microseconds.
    pub(crate) time: &'static str,
    /// The column with the id of a row.
    pub(crate) id: &'static str,
}

impl NewestFirst {
    /// Appends the conditions of a page: the first `limit` rows after the row `after`, or of all
    /// rows. The query must have a condition already.
    pub(crate) fn push(
        self,
        select: &mut QueryBuilder,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) {
        let Self { time, id } = self;
        if let Some((at, last)) = after {
            // An index by time finds the first comparison, but not both ends of an OR.
            select.push(format_args!(" AND {time} <= ")).push_bind(at.micros());
            select.push(format_args!(" AND ({time} < ")).push_bind(at.micros());
            select.push(format_args!(" OR {id} > ")).push_bind(last.to_string()).push(")");
        }
        select.push(format_args!(" ORDER BY {time} DESC, {id} LIMIT ")).push_bind(limit);
    }
}
