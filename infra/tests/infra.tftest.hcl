# Checks the stack with a mocked provider, without account or network. Run it with `terraform test` or `tofu test`.
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
  region           = "eu-central-1"
  bucket           = "example-restore-points"
  fly_organization = "example-org"
  apps             = { guestbook = {} }
}

run "bucket_is_private_encrypted_versioned_and_stays" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.store.block_public_acls,
      aws_s3_bucket_public_access_block.store.block_public_policy,
      aws_s3_bucket_public_access_block.store.ignore_public_acls,
      aws_s3_bucket_public_access_block.store.restrict_public_buckets,
    ])
    error_message = "all four settings must block public access"
  }

  assert {
    condition     = aws_s3_bucket_ownership_controls.store.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "the bucket's owner must own every object"
  }

  assert {
    condition     = !aws_s3_bucket.store.force_destroy
    error_message = "destroy must not empty the bucket"
  }

  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "the bucket must be versioned"
  }

  assert {
    condition = one([
      for rule in aws_s3_bucket_server_side_encryption_configuration.store.rule :
      rule.apply_server_side_encryption_by_default[0].sse_algorithm
    ]) == "AES256"
    error_message = "objects must be encrypted"
  }

  assert {
    condition = alltrue([
      for sid in ["TlsOnly", "Tls12OrNewer", "RestorePointsAreNeverOverwritten"] :
      one([for each in jsondecode(aws_s3_bucket_policy.store.policy).Statement : each.Effect if each.Sid == sid]) == "Deny"
    ])
    error_message = "the bucket's policy must deny plain HTTP, TLS older than 1.2, and overwriting a restore point"
  }
}

run "only_tagged_objects_expire" {
  command = plan

  assert {
    condition = {
      for rule in aws_s3_bucket_lifecycle_configuration.store.rule :
      "${rule.filter[0].tag[0].key}=${rule.filter[0].tag[0].value}" => rule.expiration[0].days if length(rule.filter[0].tag) > 0
    } == { "sidecar-tier=recent" = 2, "sidecar-tier=hourly" = 14, "sidecar-tier=daily" = 90, "sidecar-tier=stream" = 35 }
    error_message = "the three tiers and segments of streams must expire, each by its tag"
  }

  assert {
    # S3 accepts either days or this: a rule that has it expires no object.
    condition = alltrue([
      for rule in aws_s3_bucket_lifecycle_configuration.store.rule : rule.expiration[0].expired_object_delete_marker
      if length(rule.filter[0].tag) == 0 && length(rule.expiration) > 0
    ])
    error_message = "without a tag only delete markers may expire"
  }

  assert {
    condition = one([
      for rule in aws_s3_bucket_lifecycle_configuration.store.rule : length(rule.filter[0].tag) + length(rule.filter[0].and)
      if length(rule.abort_incomplete_multipart_upload) > 0
    ]) == 0
    error_message = "a rule without a filter must abort incomplete uploads"
  }

  assert {
    condition = anytrue([
      for rule in aws_s3_bucket_lifecycle_configuration.store.rule :
      rule.id == "forget-noncurrent" && rule.noncurrent_version_expiration[0].noncurrent_days == 7
      if length(rule.noncurrent_version_expiration) > 0
    ])
    error_message = "all noncurrent versions must expire"
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.store.rule : rule.status == "Enabled"])
    error_message = "every rule must be enabled"
  }
}

run "writer_adds_and_deletes_nothing" {
  command = plan

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.writer["guestbook"].policy).Statement : statement.Action
    ])) == toset(["s3:ListBucket", "s3:GetObject", "s3:GetObjectTagging", "s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"])
    error_message = "the writer must have these six actions and no others"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.writer["guestbook"].policy).Statement[0].Condition.StringLike["s3:prefix"] == "guestbook/*"
    error_message = "the writer must only list its own prefix"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.writer["guestbook"].policy).Statement[1].Resource == "arn:aws:s3:::example-restore-points/guestbook/*"
    error_message = "the writer must read and write only under its own prefix"
  }

  assert {
    condition     = length(aws_iam_role_policy.writer_kms) == 0
    error_message = "without a key, there must be no permission on keys"
  }
}

run "trust_is_one_app_of_one_organization" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role.writer["guestbook"].assume_role_policy).Statement[0].Condition == {
      StringEquals = { "oidc.fly.io/example-org:aud" = "sts.amazonaws.com" }
      StringLike   = { "oidc.fly.io/example-org:sub" = "example-org:guestbook:*" }
    }
    error_message = "the role must trust the machines of this app, with STS as the audience"
  }

  assert {
    condition     = jsondecode(aws_iam_role.writer["guestbook"].assume_role_policy).Statement[0].Principal.Federated == "arn:aws:iam::123456789012:oidc-provider/oidc.fly.io/example-org"
    error_message = "the role must trust fly.io's provider"
  }

  assert {
    condition     = output.stores["guestbook"] == "s3://example-restore-points/guestbook"
    error_message = "the store must be ready to paste"
  }

  assert {
    condition     = strcontains(output.fly_env["guestbook"], "SIDECAR_STORE = \"s3://example-restore-points/guestbook\"")
    error_message = "the [env] lines must be ready to paste"
  }
}

run "second_app_has_its_own_role_and_prefix" {
  command = plan

  variables {
    apps = { guestbook = {}, shop = { prefix = "eu/shop" } }
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.writer["shop"].policy).Statement[1].Resource == "arn:aws:s3:::example-restore-points/eu/shop/*"
    error_message = "the second app must write under its own prefix"
  }

  assert {
    condition     = jsondecode(aws_iam_role.writer["shop"].assume_role_policy).Statement[0].Condition.StringLike["oidc.fly.io/example-org:sub"] == "example-org:shop:*"
    error_message = "the second role must trust the second app"
  }
}

run "provider_that_exists_is_used" {
  command = plan

  variables {
    create_fly_oidc_provider = false
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.fly) == 0 && output.fly_oidc_provider_arn == "arn:aws:iam::123456789012:oidc-provider/oidc.fly.io/example-org"
    error_message = "an existing provider must not be created again"
  }
}

run "own_key_is_used_through_s3_only" {
  command = plan

  variables {
    create_kms_key = true
  }

  assert {
    condition     = aws_kms_key.store[0].enable_key_rotation && one([for rule in aws_s3_bucket_server_side_encryption_configuration.store.rule : rule.bucket_key_enabled])
    error_message = "the key must rotate, and the bucket key must save requests"
  }

  assert {
    condition     = keys(aws_iam_role_policy.writer_kms) == ["guestbook"]
    error_message = "every writer must be allowed to use the key"
  }
}

run "object_lock" {
  command = plan

  variables {
    object_lock = { days = 14 }
  }

  assert {
    condition     = aws_s3_bucket.store.object_lock_enabled && aws_s3_bucket_object_lock_configuration.store[0].rule[0].default_retention[0].mode == "GOVERNANCE"
    error_message = "the bucket must be created with Object Lock and have a default"
  }
}

run "access_logs" {
  command = plan

  variables {
    access_log_days = 30
  }

  assert {
    condition     = aws_s3_bucket.logs[0].bucket == "example-restore-points-logs" && length(aws_s3_bucket_logging.store) == 1
    error_message = "access logs must go to a bucket of their own"
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.logs[0].rule : rule.expiration[0].days]) == 30
    error_message = "access logs must expire"
  }
}

run "none_of_the_options_by_default" {
  command = plan

  assert {
    condition     = length(aws_s3_bucket.logs) + length(aws_kms_key.store) + length(aws_s3_bucket_object_lock_configuration.store) == 0
    error_message = "options cost money, so they must be off by default"
  }
}

run "personal_is_no_slug" {
  command = plan

  variables {
    fly_organization = "personal"
  }

  expect_failures = [var.fly_organization]
}

run "wildcards_are_refused" {
  command = plan

  variables {
    bucket = "example.restore.points"
    apps   = { "*" = {} }
  }

  expect_failures = [var.bucket, var.apps]
}

run "prefixes_do_not_nest" {
  command = plan

  variables {
    apps = { guestbook = { prefix = "a" }, shop = { prefix = "a/b" } }
  }

  expect_failures = [var.apps]
}

run "prefixes_that_only_look_alike_are_fine" {
  command = plan

  variables {
    apps = { guestbook = { prefix = "a" }, shop = { prefix = "ab" } }
  }

  assert {
    condition     = length(aws_iam_role.writer) == 2
    error_message = "a and ab must be accepted as two prefixes"
  }
}

run "retention_grows" {
  command = plan

  variables {
    retention_days = { recent = 30, hourly = 7 }
  }

  expect_failures = [var.retention_days]
}

run "streams_expire_before_daily_restore_points" {
  command = plan

  variables {
    retention_days = { stream = 36 }
  }

  expect_failures = [var.retention_days]
}

run "streams_outlast_a_crash" {
  command = plan

  variables {
    retention_days = { stream = 6 }
  }

  expect_failures = [var.retention_days]
}

run "retention_is_whole_days" {
  command = plan

  variables {
    retention_days = { recent = 0.5 }
  }

  expect_failures = [var.retention_days]
}
