variable "region" {
  description = "AWS region of the state bucket, like `eu-central-1`."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the code of an AWS region, like eu-central-1."
  }
}

variable "state_bucket" {
  description = "Name of the bucket for Terraform's states; globally unique."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "state_bucket must have 3 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends."
  }
}

variable "store_bucket" {
  description = "The `bucket` that `infra` will create for restore points. The roles created here can set up this bucket and its `-logs` sibling, and no other."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,56}[a-z0-9]$", var.store_bucket)) && var.store_bucket != var.state_bucket
    error_message = "store_bucket must have 3 to 58 lower-case letters, digits and hyphens, and must not be the state bucket."
  }
}

variable "github_owner" {
  description = "Owner of the repository whose workflows run plan and apply, like `example-org`."
  type        = string

  validation {
    # Keeps wildcards out of the trust policy.
    condition     = can(regex("^[A-Za-z0-9](-?[A-Za-z0-9])*$", var.github_owner))
    error_message = "github_owner must be the name of a GitHub user or organization."
  }
}

variable "github_repository" {
  description = "Name of the repository, without its owner, like `example-app`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository must be the name of a repository, without its owner."
  }
}

variable "github_owner_id" {
  description = "Numeric id of the owner: `gh api users/example-org --jq .id`. Part of the immutable subject."
  type        = number

  validation {
    condition     = var.github_owner_id > 0 && floor(var.github_owner_id) == var.github_owner_id
    error_message = "github_owner_id must be a positive whole number."
  }
}

variable "github_repository_id" {
  description = "Numeric id of the repository: `gh api repos/example-org/example-app --jq .id`. Part of the immutable subject."
  type        = number

  validation {
    condition     = var.github_repository_id > 0 && floor(var.github_repository_id) == var.github_repository_id
    error_message = "github_repository_id must be a positive whole number."
  }
}

variable "github_subject_forms" {
  description = "Which forms of GitHub's subject are trusted: `classic` (`repo:ORG/REPO:...`), `immutable` (`repo:ORG@ID/REPO@ID:...`, the default of repositories created since July 2026), or both. Drop `classic` once your tokens have the immutable one: a name can be taken over after a rename, an id cannot."
  type        = set(string)
  default     = ["classic", "immutable"]

  validation {
    condition     = length(var.github_subject_forms) > 0 && length(setsubtract(var.github_subject_forms, ["classic", "immutable"])) == 0
    error_message = "github_subject_forms must have classic, immutable, or both."
  }
}

variable "create_github_oidc_provider" {
  description = "Whether to create the IAM identity provider for GitHub Actions. An account can have it only once: set false if it already exists."
  type        = bool
  default     = true
}

variable "state_noncurrent_days" {
  description = "Days for which an earlier state can be recovered."
  type        = number
  default     = 90

  validation {
    condition     = var.state_noncurrent_days >= 1 && floor(var.state_noncurrent_days) == var.state_noncurrent_days
    error_message = "state_noncurrent_days must be whole days, at least 1."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = { app = "sidecar" }
}
