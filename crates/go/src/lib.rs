//! Go's standard library and go-units, as far as Docker's users see them: what flags accept, how lists look, how messages
//! quote. Each function follows one Go function, which its documentation names, to the byte.
//!
//! Nothing here knows images or builds.

pub mod csv;
pub mod duration;
mod json;
pub mod path;
mod quote;
pub mod size;
mod strconv;
mod strings;
mod tabwriter;
mod template;

pub use json::{to_json, to_json_indented};
pub use quote::quoted;
pub use strconv::{NumberError, parse_bool, parse_int};
pub use strings::{is_lower, is_upper, to_lower, to_upper};
pub use tabwriter::TabWriter;
pub use template::{Template, TemplateError};
