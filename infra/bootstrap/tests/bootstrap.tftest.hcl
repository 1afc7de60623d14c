# Checks the bootstrap stack with a mocked provider, without account or network. Run it with `terraform test` or `tofu test`.
# It only plans: a test could not destroy what `prevent_destroy` protects.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  region               = "eu-central-1"
  state_bucket         = "example-states"
  store_bucket         = "example-restore-points"
  github_owner         = "example-org"
  github_repository    = "example-app"
  github_owner_id      = 123456
  github_repository_id = 456789
}

run "state_bucket_is_private_versioned_and_stays" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.state.block_public_acls,
      aws_s3_bucket_public_access_block.state.block_public_policy,
      aws_s3_bucket_public_access_block.state.ignore_public_acls,
      aws_s3_bucket_public_access_block.state.restrict_public_buckets,
    ])
    error_message = "all four settings must block public access"
  }

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && !aws_s3_bucket.state.force_destroy
    error_message = "earlier states must be kept, and destroy must not empty the bucket"
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.state.rule : length(rule.expiration) == 0])
    error_message = "no current state may ever expire"
  }
}

run "apply_is_only_for_the_environment_production" {
  command = plan

  assert {
    condition = toset(jsondecode(aws_iam_role.apply.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]) == toset([
      "repo:example-org/example-app:environment:production",
      "repo:example-org@123456/example-app@456789:environment:production",
    ])
    error_message = "the apply role must trust both subject forms of the environment production, and nothing else"
  }

  assert {
    condition = alltrue([
      for role in [aws_iam_role.plan, aws_iam_role.apply] :
      keys(jsondecode(role.assume_role_policy).Statement[0].Condition) == ["StringEquals"] &&
      jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
    ])
    error_message = "subjects must be compared in full, never by pattern, and the audience must be STS"
  }
}

run "plan_is_for_pull_requests_and_main" {
  command = plan

  assert {
    condition = toset(jsondecode(aws_iam_role.plan.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]) == toset([
      "repo:example-org/example-app:pull_request",
      "repo:example-org/example-app:ref:refs/heads/main",
      "repo:example-org@123456/example-app@456789:pull_request",
      "repo:example-org@123456/example-app@456789:ref:refs/heads/main",
    ])
    error_message = "the plan role must trust pull requests and main in both subject forms, and nothing else"
  }

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.plan.policy).Statement : [
        for action in flatten([statement.Action]) : can(regex("^(s3|iam|kms):(Get|List|Describe)", action))
      ]
    ]))
    error_message = "the plan role must only read"
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.plan.policy).Statement :
      statement.Resource == "arn:aws:s3:::example-states/sidecar/infra.tfstate" || !contains(flatten([statement.Action]), "s3:GetObject")
    ])
    error_message = "the plan role must read the state and no other object, in particular no restore point"
  }
}

run "immutable_form_alone" {
  command = plan

  variables {
    github_subject_forms = ["immutable"]
  }

  assert {
    condition = jsondecode(aws_iam_role.apply.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == [
      "repo:example-org@123456/example-app@456789:environment:production"
    ]
    error_message = "without the classic form only the immutable subject may be trusted"
  }
}

run "apply_deletes_no_bucket_and_cannot_leave_the_boundary" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.apply.policy).Statement : [
        for action in flatten([statement.Action]) :
        !can(regex("^s3:(\\*|Delete|BypassGovernance)", action)) || statement.Resource == "arn:aws:s3:::example-states/sidecar/infra.tfstate.tflock"
      ]
    ]))
    error_message = "the apply role must be able to delete the state's lock and no other object"
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.apply.policy).Statement :
      length(setintersection(flatten([statement.Action]), ["iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"])) == 0 ||
      try(statement.Condition.StringEquals["iam:PermissionsBoundary"], "") == "arn:aws:iam::123456789012:policy/sidecar-ci/sidecar-writer-boundary"
    ])
    error_message = "the apply role must create roles only within the boundary"
  }

  assert {
    condition     = !strcontains(aws_iam_policy.writer_boundary.policy, "Delete") && !strcontains(aws_iam_policy.writer_boundary.policy, "*:*")
    error_message = "the boundary must not allow deletion"
  }
}

run "wildcards_in_names_are_refused" {
  command = plan

  variables {
    github_owner      = "*"
    github_repository = "example-app:*"
  }

  expect_failures = [var.github_owner, var.github_repository]
}

run "store_and_state_are_two_buckets" {
  command = plan

  variables {
    store_bucket = "example-states"
  }

  expect_failures = [var.store_bucket]
}
