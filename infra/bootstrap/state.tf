# Where Terraform keeps its states. The lock is an object beside the state (`use_lockfile`), so no table is needed.

resource "aws_s3_bucket" "state" {
  # checkov:skip=CKV_AWS_144: a state can be imported again; a second region is not worth its cost
  # checkov:skip=CKV_AWS_145: the states hold no secrets; SSE-S3 needs no key that could be lost
  # checkov:skip=CKV_AWS_18: the workflow's runs show who changed the state
  # checkov:skip=CKV2_AWS_62: nothing listens to events
  bucket        = var.state_bucket
  force_destroy = false

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket                  = aws_s3_bucket.state.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# A damaged or overwritten state can be replaced by an earlier version.
resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "forget-noncurrent"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.state_noncurrent_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.state]
}

resource "aws_s3_bucket_policy" "state" {
  bucket     = aws_s3_bucket.state.id
  policy     = templatefile("${path.module}/../policies/bucket.json.tftpl", { bucket_arn = local.state_bucket_arn })
  depends_on = [aws_s3_bucket_public_access_block.state]
}
