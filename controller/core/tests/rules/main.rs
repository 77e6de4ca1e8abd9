//! Does the cluster keep its rules? One module for each kind of rule.

#[path = "../common/mod.rs"]
mod common;

mod array;
mod dependency;
mod random;
mod submit;
