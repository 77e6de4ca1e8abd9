//! What has changed since somebody last looked?
//!
//! Every durable change of a job or an array is an event with a number. The newest are kept in one ring for
//! all who follow them, each at a pace of its own: nothing is kept for one of them, and whoever falls behind
//! the ring is told so and looks at the whole again. Numbers rise over restarts too, since they begin with
//! the store's revision; so one that was kept elsewhere (a stream that broke, a browser) is never mistaken
//! for a later one.

mod ring;
mod seats;

pub use ring::{Event, Events, Lagged, Subject};
pub use seats::Seat;
