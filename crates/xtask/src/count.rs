//! What came of tests.

/// How many tests did what.
#[derive(Default)]
pub(crate) struct Count {
    /// Did what they should.
    pub(crate) passed: usize,
    /// Did not.
    pub(crate) failed: usize,
    /// Could not run here. Those of the ordinary harness are among the passed ones too.
    pub(crate) skipped: usize,
}

impl Count {
    /// The last line, and whether all went well.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed == 0 { Ok(()) } else { Err("there are failures".to_owned()) }
    }
}
