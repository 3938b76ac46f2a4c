# Functions on times.
target "default" {
  args = {
    formatdate         = jsonencode([
      formatdate("YYYY-MM-DD'T'hh:mm:ssZ", "2024-02-03T04:05:06+02:00"),
      formatdate("EEEE, D MMMM YY h:m:s 'o''clock' AA", "2024-02-03T14:05:06Z"),
      formatdate("EEE MMM M HH H aa ZZZ ZZZZ ZZZZZ", "2024-12-25T00:05:06-05:30"),
    ])
    formattimestamp    = jsonencode([
      formattimestamp("YYYYMMDD", 1700000000),
      formattimestamp("X", "2024-02-03T04:05:06Z"),
      formattimestamp("X", 1700000000),
      formattimestamp("hh:mm", "2024-02-03T04:05:06Z"),
    ])
    homedir            = homedir()
    timeadd            = jsonencode([timeadd("2024-02-28T23:00:00Z", "1h30m"), timeadd("2024-01-01T00:00:00Z", "-24h")])
    timestamp          = strlen(timestamp())
    unixtimestampparse = jsonencode(unixtimestampparse(1700000000))
  }
}
