# Who may write: each fly.io app has its own role, which it assumes with fly.io's identity tokens. There are no keys.

locals {
  fly_provider_arn = "${local.iam_arn}:oidc-provider/oidc.fly.io/${var.fly_organization}"
  writer_role_arns = { for app, role in aws_iam_role.writer : app => "${local.iam_arn}:role${role.path}${role.name}" }
}

resource "aws_iam_openid_connect_provider" "fly" {
  count          = var.create_fly_oidc_provider ? 1 : 0
  url            = "https://oidc.fly.io/${var.fly_organization}"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "writer" {
  for_each             = var.apps
  name                 = "sidecar-writer-${each.key}"
  path                 = "/sidecar/"
  description          = "fly.io app ${each.key}: adds restore points under ${local.prefixes[each.key]}/, cannot delete"
  permissions_boundary = var.permissions_boundary_arn

  # sidecar requests one hour, so a stolen session ends within that.
  max_session_duration = 3600

  assume_role_policy = templatefile("${path.module}/policies/fly_trust.json.tftpl", {
    provider_arn = local.fly_provider_arn
    organization = var.fly_organization
    app          = each.key
  })

  depends_on = [aws_iam_openid_connect_provider.fly]
}

resource "aws_iam_role_policy" "writer" {
  for_each = var.apps
  name     = "write-restore-points"
  role     = aws_iam_role.writer[each.key].id

  # With ListBucket on the prefix, a missing key gives 404 instead of 403, which means that nothing has been published yet.
  # GetObjectTagging is needed because PutObjectTagging replaces all tags: a hold that was set by hand would be lost.
  policy = templatefile("${path.module}/policies/writer.json.tftpl", {
    bucket_arn = local.bucket_arn
    prefix     = local.prefixes[each.key]
  })
}

resource "aws_iam_role_policy" "writer_kms" {
  for_each = var.create_kms_key ? var.apps : {}
  name     = "use-the-key"
  role     = aws_iam_role.writer[each.key].id

  # Writing also needs Decrypt: S3 reads the parts of an upload again when it is completed.
  policy = templatefile("${path.module}/policies/writer_kms.json.tftpl", {
    key_arn = aws_kms_key.store[0].arn
    region  = var.region
  })
}
