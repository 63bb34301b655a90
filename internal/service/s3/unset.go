package s3

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// What no bucket has here: the operations that would set it are refused as not
// supported, and those that ask are answered as for a bucket that has none of
// it. Tools that keep whole buckets, such as Terraform, ask for all of it.

// unset answers about a bucket that it has no such configuration.
func (s *Service) unset(in any, name *string, code, message string) error {
	if _, err := s.bucket(in, name); err != nil {
		return err
	}
	return with(fail(code, "%s", message), "BucketName", aws.Value(name))
}

// GetBucketCors finds no rules.
func (s *Service) GetBucketCors(_ context.Context, in *api.GetBucketCorsInput) (*api.GetBucketCorsOutput, error) {
	return nil, s.unset(in, in.Bucket, "NoSuchCORSConfiguration", "The CORS configuration does not exist")
}

// GetBucketWebsite finds no web site.
func (s *Service) GetBucketWebsite(_ context.Context, in *api.GetBucketWebsiteInput) (*api.GetBucketWebsiteOutput, error) {
	return nil, s.unset(in, in.Bucket, "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration")
}

// GetBucketLifecycleConfiguration finds no rules.
func (s *Service) GetBucketLifecycleConfiguration(_ context.Context, in *api.GetBucketLifecycleConfigurationInput) (*api.GetBucketLifecycleConfigurationOutput, error) {
	return nil, s.unset(in, in.Bucket, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
}

// GetBucketReplication finds no rules.
func (s *Service) GetBucketReplication(_ context.Context, in *api.GetBucketReplicationInput) (*api.GetBucketReplicationOutput, error) {
	return nil, s.unset(in, in.Bucket, "ReplicationConfigurationNotFoundError", "The replication configuration was not found")
}

// GetBucketEncryption finds no encryption: AWS encrypts objects of every bucket,
// and answered this for those that it did not.
func (s *Service) GetBucketEncryption(_ context.Context, in *api.GetBucketEncryptionInput) (*api.GetBucketEncryptionOutput, error) {
	return nil, s.unset(in, in.Bucket, "ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found")
}

// GetObjectLockConfiguration finds no locks.
func (s *Service) GetObjectLockConfiguration(_ context.Context, in *api.GetObjectLockConfigurationInput) (*api.GetObjectLockConfigurationOutput, error) {
	return nil, s.unset(in, in.Bucket, "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket")
}

// GetBucketAccelerateConfiguration says that there is no acceleration.
func (s *Service) GetBucketAccelerateConfiguration(_ context.Context, in *api.GetBucketAccelerateConfigurationInput) (*api.GetBucketAccelerateConfigurationOutput, error) {
	_, err := s.bucket(in, in.Bucket)
	return &api.GetBucketAccelerateConfigurationOutput{}, err
}

// GetBucketRequestPayment says that the owner pays, as there is one account.
func (s *Service) GetBucketRequestPayment(_ context.Context, in *api.GetBucketRequestPaymentInput) (*api.GetBucketRequestPaymentOutput, error) {
	_, err := s.bucket(in, in.Bucket)
	return &api.GetBucketRequestPaymentOutput{Payer: "BucketOwner"}, err
}

// GetBucketLogging says that requests are not logged.
func (s *Service) GetBucketLogging(_ context.Context, in *api.GetBucketLoggingInput) (*api.GetBucketLoggingOutput, error) {
	_, err := s.bucket(in, in.Bucket)
	return &api.GetBucketLoggingOutput{}, err
}

// GetBucketNotificationConfiguration says that nobody is told of events.
func (s *Service) GetBucketNotificationConfiguration(_ context.Context, in *api.GetBucketNotificationConfigurationInput) (*api.GetBucketNotificationConfigurationOutput, error) {
	_, err := s.bucket(in, in.Bucket)
	return &api.GetBucketNotificationConfigurationOutput{}, err
}
