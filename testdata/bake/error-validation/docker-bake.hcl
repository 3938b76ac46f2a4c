variable "PORT" {
  default = 80
  validation {
    condition     = PORT > 1024
    error_message = "PORT must be above 1024, and is ${PORT}."
  }
}
target "default" { args = { PORT = PORT } }
