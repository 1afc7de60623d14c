variable "region" {
  description = "AWS region of the bucket, like `eu-central-1`. Choose one near the app's fly.io region, because every boot reads from it."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the code of an AWS region, like eu-central-1."
  }
}

variable "bucket" {
  description = "Name of the bucket for restore points; globally unique."
  type        = string

  validation {
    # No dots, because TLS certificates for virtual-hosted buckets do not match them. At most 58, to leave room for "-logs".
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,56}[a-z0-9]$", var.bucket))
    error_message = "bucket must have 3 to 58 lower-case letters, digits and hyphens, with a letter or digit at both ends."
  }
}

variable "fly_organization" {
  description = "Slug of the fly.io organization as it appears in its tokens (`iss` is `https://oidc.fly.io/<slug>`). `personal` is an alias, never the slug: see README."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", var.fly_organization)) && var.fly_organization != "personal"
    error_message = "fly_organization must be the real slug of the organization. \"personal\" is an alias that appears in no token; infra/README.md says how to find the real slug."
  }
}

variable "apps" {
  description = "One entry for each fly.io app, by name. `prefix` is where its restore points are stored in the bucket; by default the app's name."
  type = map(object({
    prefix = optional(string)
  }))

  validation {
    condition     = length(var.apps) > 0
    error_message = "apps must name at least one fly.io app."
  }

  validation {
    # "*" and ":" in a name would widen the trust policy's `<organization>:<app>:*`. At most 40, as IAM role names have 64.
    condition     = alltrue([for app in keys(var.apps) : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", app))])
    error_message = "Names in apps must be fly.io app names of up to 40 characters: lower-case letters, digits and hyphens."
  }

  validation {
    condition = alltrue([
      for app, each in var.apps : can(regex("^[A-Za-z0-9_-]+([./]?[A-Za-z0-9_-]+)*$", coalesce(each.prefix, app)))
    ])
    error_message = "A prefix has letters, digits, \"_\", \"-\", \".\" and \"/\", and neither starts nor ends with one of the last two. Wildcards would give access to other apps' restore points."
  }

  validation {
    # A prefix below another one would be readable and writable by both apps.
    condition = alltrue(flatten([
      for one, first in var.apps : [
        for other, second in var.apps :
        one == other || !startswith("${coalesce(second.prefix, other)}/", "${coalesce(first.prefix, one)}/")
      ]
    ]))
    error_message = "No app's prefix may be equal to another app's, or below it."
  }
}

variable "create_fly_oidc_provider" {
  description = "Whether to create the IAM identity provider for the fly.io organization. An account can have it only once: set false if it already exists."
  type        = bool
  default     = true
}

variable "retention_days" {
  description = "Days after which restore points of each tier and segments of streams (object tag `sidecar-tier`) expire, counted from their creation. The newest restore point has no tag and never expires; neither does one that is tagged `held`. sidecar's setting `retention_days` must be the same."
  type = object({
    recent = optional(number, 1)
    hourly = optional(number, 7)
    daily  = optional(number, 35)
    stream = optional(number, 35)
  })
  default = {}

  validation {
    condition = alltrue([
      for days in values(var.retention_days) : days >= 1 && floor(days) == days
    ])
    error_message = "retention_days must be whole days, at least 1."
  }

  validation {
    condition     = var.retention_days.recent <= var.retention_days.hourly && var.retention_days.hourly <= var.retention_days.daily
    error_message = "retention_days must satisfy recent <= hourly <= daily."
  }

  # A segment is useless without a restore point before it. After a crash, only segments have the last commits until the next boot.
  validation {
    condition     = var.retention_days.stream >= 7 && var.retention_days.stream <= var.retention_days.daily
    error_message = "retention_days.stream must be at least 7, and not longer than retention_days.daily."
  }
}

variable "noncurrent_days" {
  description = "Days for which an expired, deleted or overwritten object can still be recovered as a noncurrent version. The writer can tag, so this is also the time to notice that it made something expire that should have been kept."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days must be whole days, at least 1."
  }
}

variable "create_kms_key" {
  description = "Encrypt with a KMS key of your own (about $1 a month, and a charge per request, which the bucket key reduces) instead of SSE-S3."
  type        = bool
  default     = false
}

variable "object_lock" {
  description = "Default Object Lock of every new object: `mode` GOVERNANCE (a special permission can override it) or COMPLIANCE (nobody can), for `days`. Only possible when the bucket is created. null: none."
  type = object({
    mode = optional(string, "GOVERNANCE")
    days = number
  })
  default = null

  validation {
    condition     = var.object_lock == null ? true : contains(["GOVERNANCE", "COMPLIANCE"], var.object_lock.mode)
    error_message = "object_lock.mode must be GOVERNANCE or COMPLIANCE."
  }

  validation {
    condition     = var.object_lock == null ? true : var.object_lock.days >= 1 && floor(var.object_lock.days) == var.object_lock.days
    error_message = "object_lock.days must be whole days, at least 1."
  }
}

variable "access_log_days" {
  description = "Keep S3's access logs in a second bucket, `<bucket>-logs`, for this many days. null: no access logs."
  type        = number
  default     = null

  validation {
    condition     = var.access_log_days == null ? true : var.access_log_days >= 1 && floor(var.access_log_days) == var.access_log_days
    error_message = "access_log_days must be whole days, at least 1, or null."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the writer roles: the output `writer_boundary_arn` of bootstrap. The apply role can only create roles that have it. null if you apply by hand with your own permissions."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null ? true : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of an IAM policy."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = { app = "sidecar" }
}
