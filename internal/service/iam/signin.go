package iam

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
)

// Users sign in with access keys, and with nothing else: what makes passwords,
// devices and certificates is refused as not supported. Clients that delete a
// user ask for each of them before, and are answered as for one who has none.

// noLoginProfile says of a user that there is no password.
func (s *Service) noLoginProfile(ctx context.Context, name *string) error {
	u, err := s.namedUser(ctx, name)
	if err != nil {
		return err
	}
	return iam.NewNoSuchEntityException("Login Profile for User %s cannot be found.", u.Name)
}

// GetLoginProfile implements iam.API.
func (s *Service) GetLoginProfile(ctx context.Context, in *iam.GetLoginProfileInput) (*iam.GetLoginProfileOutput, error) {
	return nil, s.noLoginProfile(ctx, in.UserName)
}

// DeleteLoginProfile implements iam.API.
func (s *Service) DeleteLoginProfile(ctx context.Context, in *iam.DeleteLoginProfileInput) (*iam.DeleteLoginProfileOutput, error) {
	return nil, s.noLoginProfile(ctx, in.UserName)
}

// ListMFADevices implements iam.API.
func (s *Service) ListMFADevices(ctx context.Context, in *iam.ListMFADevicesInput) (*iam.ListMFADevicesOutput, error) {
	_, err := s.namedUser(ctx, in.UserName)
	return &iam.ListMFADevicesOutput{MFADevices: []*iam.MFADevice{}, IsTruncated: aws.Ptr(false)}, err
}

// ListVirtualMFADevices implements iam.API.
func (s *Service) ListVirtualMFADevices(context.Context, *iam.ListVirtualMFADevicesInput) (*iam.ListVirtualMFADevicesOutput, error) {
	return &iam.ListVirtualMFADevicesOutput{VirtualMFADevices: []*iam.VirtualMFADevice{}, IsTruncated: aws.Ptr(false)}, nil
}

// ListSSHPublicKeys implements iam.API.
func (s *Service) ListSSHPublicKeys(ctx context.Context, in *iam.ListSSHPublicKeysInput) (*iam.ListSSHPublicKeysOutput, error) {
	_, err := s.namedUser(ctx, in.UserName)
	return &iam.ListSSHPublicKeysOutput{SSHPublicKeys: []*iam.SSHPublicKeyMetadata{}, IsTruncated: aws.Ptr(false)}, err
}

// ListSigningCertificates implements iam.API.
func (s *Service) ListSigningCertificates(ctx context.Context, in *iam.ListSigningCertificatesInput) (*iam.ListSigningCertificatesOutput, error) {
	_, err := s.namedUser(ctx, in.UserName)
	return &iam.ListSigningCertificatesOutput{Certificates: []*iam.SigningCertificate{}, IsTruncated: aws.Ptr(false)}, err
}

// ListServiceSpecificCredentials implements iam.API.
func (s *Service) ListServiceSpecificCredentials(ctx context.Context, in *iam.ListServiceSpecificCredentialsInput) (*iam.ListServiceSpecificCredentialsOutput, error) {
	out := &iam.ListServiceSpecificCredentialsOutput{ServiceSpecificCredentials: []*iam.ServiceSpecificCredentialMetadata{}, IsTruncated: aws.Ptr(false)}
	if aws.Value(in.AllUsers) {
		return out, nil
	}
	_, err := s.namedUser(ctx, in.UserName)
	return out, err
}
