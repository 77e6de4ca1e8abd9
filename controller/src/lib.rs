//! How does the cluster become a daemon?
//!
//! The core decides; this crate makes its decisions durable ([`store`]), carries them out by agents
//! ([`links`]), and answers whoever asks ([`rpc`]). Three owners run beside each other: the writer's
//! thread, which alone changes the cluster, the scheduler's thread, which makes plans from
//! snapshots, and the runtime, which serves calls from snapshots.

mod calendar;
pub mod clock;
pub mod config;
pub mod convert;
mod cron_times;
pub mod daemon;
pub mod events;
pub mod fence;
pub mod gpus;
mod health;
pub mod http;
pub mod identity;
mod idle;
mod judge;
pub mod links;
pub mod listing;
mod mail;
pub mod planner;
mod program;
pub mod recurrence;
pub mod rpc;
pub mod settings;
pub mod site;
pub mod statistics;
pub mod steps;
pub mod store;
mod trim;
pub mod upkeep;
pub mod usage;
pub mod writer;
