# What the workflows of one repository may do: every job can plan, only jobs of the environment `production` can apply.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Names are spelled out instead of read from resources, so that a plan shows every policy in full before anything exists.
locals {
  iam_arn = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}"

  github_provider_arn = "${local.iam_arn}:oidc-provider/token.actions.githubusercontent.com"
  state_bucket_arn    = "arn:${data.aws_partition.current.partition}:s3:::${var.state_bucket}"
  boundary_arn        = "${local.iam_arn}:policy${aws_iam_policy.writer_boundary.path}${aws_iam_policy.writer_boundary.name}"

  # https://docs.github.com/en/actions/reference/security/oidc#immutable-subject-claims
  repositories = compact([
    contains(var.github_subject_forms, "classic") ? "repo:${var.github_owner}/${var.github_repository}" : "",
    contains(var.github_subject_forms, "immutable") ? format(
      "repo:%s@%d/%s@%d", var.github_owner, var.github_owner_id, var.github_repository, var.github_repository_id
    ) : "",
  ])

  # The subject of a job that names an environment is that environment, whatever the branch; that of a pull request is never a
  # branch. So the environment `production` on GitHub must be restricted to main (see README).
  plan_subjects  = flatten([for each in local.repositories : ["${each}:pull_request", "${each}:ref:refs/heads/main"]])
  apply_subjects = [for each in local.repositories : "${each}:environment:production"]

  store_bucket_arns = [
    for name in [var.store_bucket, "${var.store_bucket}-logs"] : "arn:${data.aws_partition.current.partition}:s3:::${name}"
  ]

  plan_policy = templatefile("${path.module}/policies/plan.json.tftpl", {
    state_bucket_arn  = local.state_bucket_arn
    store_bucket_arns = jsonencode(local.store_bucket_arns)
    partition         = data.aws_partition.current.partition
    account_id        = data.aws_caller_identity.current.account_id
  })
}

resource "aws_iam_openid_connect_provider" "github" {
  count          = var.create_github_oidc_provider ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "plan" {
  name                 = "sidecar-plan"
  path                 = "/sidecar-ci/"
  description          = "Workflows of ${var.github_owner}/${var.github_repository}: read what Terraform manages, no restore points"
  max_session_duration = 3600

  assume_role_policy = templatefile("${path.module}/policies/github_trust.json.tftpl", {
    provider_arn = local.github_provider_arn
    subjects     = jsonencode(local.plan_subjects)
  })

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "plan" {
  name   = "read"
  role   = aws_iam_role.plan.id
  policy = local.plan_policy
}

resource "aws_iam_role" "apply" {
  name                 = "sidecar-apply"
  path                 = "/sidecar-ci/"
  description          = "Environment production of ${var.github_owner}/${var.github_repository}: change what Terraform manages"
  max_session_duration = 3600

  assume_role_policy = templatefile("${path.module}/policies/github_trust.json.tftpl", {
    provider_arn = local.github_provider_arn
    subjects     = jsonencode(local.apply_subjects)
  })

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "apply_read" {
  name   = "read"
  role   = aws_iam_role.apply.id
  policy = local.plan_policy
}

resource "aws_iam_role_policy" "apply" {
  name = "change"
  role = aws_iam_role.apply.id

  policy = templatefile("${path.module}/policies/apply.json.tftpl", {
    state_bucket_arn  = local.state_bucket_arn
    store_bucket_arns = jsonencode(local.store_bucket_arns)
    boundary_arn      = local.boundary_arn
    partition         = data.aws_partition.current.partition
    account_id        = data.aws_caller_identity.current.account_id
  })
}

resource "aws_iam_role_policy" "apply_kms" {
  name = "keys"
  role = aws_iam_role.apply.id

  policy = templatefile("${path.module}/policies/apply_kms.json.tftpl", {
    partition  = data.aws_partition.current.partition
    account_id = data.aws_caller_identity.current.account_id
    alias_arns = jsonencode([
      "arn:${data.aws_partition.current.partition}:kms:*:${data.aws_caller_identity.current.account_id}:alias/${var.store_bucket}",
    ])
  })
}

# Whoever can write a role's policy can give it any permission and then assume it. The boundary prevents that: no role
# created by the apply role can ever do more than a writer, and the apply role cannot change the boundary.
resource "aws_iam_policy" "writer_boundary" {
  name        = "sidecar-writer-boundary"
  path        = "/sidecar-ci/"
  description = "The most that a writer role can be given"

  policy = templatefile("${path.module}/policies/writer_boundary.json.tftpl", {
    store_resources = jsonencode([local.store_bucket_arns[0], "${local.store_bucket_arns[0]}/*"])
    partition       = data.aws_partition.current.partition
    account_id      = data.aws_caller_identity.current.account_id
  })
}
