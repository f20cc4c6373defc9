import type {
  LocalSubjectAccessReview,
  ResourceAttributes,
  SelfSubjectAccessReview,
  SelfSubjectRulesReview,
  SubjectAccessReview,
  SubjectAccessReviewSpec,
  TokenReview,
} from '#spec/kubernetes/types.gen.ts';
import type { User } from '../authn/user.ts';
import type { Attributes } from '../authz/authorizer.ts';
import { json } from '../http/respond.ts';
import type { ApiResponse } from '../http/types.ts';
import { badRequest } from '../status.ts';
import type { Call, Handler } from './call.ts';
import { bind, readTyped } from './subresources.ts';

/** Resources that answer a question and store nothing, by plural. */
export const REVIEWS: Record<string, Handler> = {
  bindings: bind,
  selfsubjectaccessreviews: selfAccess,
  subjectaccessreviews: access,
  localsubjectaccessreviews: localAccess,
  selfsubjectrulesreviews: selfRules,
  selfsubjectreviews: self,
  tokenreviews: token,
};

async function selfAccess(call: Call): Promise<ApiResponse> {
  const review = readTyped<SelfSubjectAccessReview>(call, 'authorization.v1.SelfSubjectAccessReview');
  return accessAnswer(call, 'SelfSubjectAccessReview', review.spec, call.user);
}

async function access(call: Call): Promise<ApiResponse> {
  const review = readTyped<SubjectAccessReview>(call, 'authorization.v1.SubjectAccessReview');
  return accessAnswer(call, 'SubjectAccessReview', review.spec, userIn(review.spec));
}

async function localAccess(call: Call): Promise<ApiResponse> {
  const review = readTyped<LocalSubjectAccessReview>(call, 'authorization.v1.LocalSubjectAccessReview');
  if ((review.spec?.resourceAttributes?.namespace ?? call.route.namespace) !== call.route.namespace)
    throw badRequest('spec.resourceAttributes.namespace: Invalid value: must match metadata.namespace');
  return accessAnswer(call, 'LocalSubjectAccessReview', review.spec, userIn(review.spec));
}

function userIn(spec: SubjectAccessReviewSpec | undefined): User {
  if (!spec?.user && (spec?.groups ?? []).length === 0)
    throw badRequest('spec.user: Required value: at least one of user or group must be specified');
  return {
    username: spec?.user ?? '',
    groups: spec?.groups ?? [],
    ...(spec?.uid === undefined ? {} : { uid: spec.uid }),
  };
}

type AccessSpec =
  | { resourceAttributes?: ResourceAttributes; nonResourceAttributes?: { path?: string; verb?: string } }
  | undefined;

function accessAnswer(call: Call, kind: string, spec: AccessSpec, user: User): ApiResponse {
  const decision = call.services.authorizer.decide(user, attributesOf(spec));
  const status = { allowed: decision.allowed, ...(decision.reason === '' ? {} : { reason: decision.reason }) };
  return json(201, { kind, apiVersion: 'authorization.k8s.io/v1', metadata: {}, spec, status });
}

function attributesOf(spec: AccessSpec): Attributes {
  const resource = spec?.resourceAttributes;
  if (resource) {
    return {
      is: 'resource',
      verb: resource.verb ?? '',
      group: resource.group ?? '',
      resource: resource.resource ?? '',
      subresource: resource.subresource ?? '',
      namespace: resource.namespace || undefined,
      name: resource.name || undefined,
    };
  }
  const path = spec?.nonResourceAttributes;
  if (!path)
    throw badRequest(
      'spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified',
    );
  return { is: 'path', verb: path.verb ?? '', path: path.path ?? '' };
}

async function selfRules(call: Call): Promise<ApiResponse> {
  const review = readTyped<SelfSubjectRulesReview>(call, 'authorization.v1.SelfSubjectRulesReview');
  const rules = call.services.authorizer.rulesOf(call.user, review.spec?.namespace || undefined);
  const resourceRules = rules
    .filter((r) => (r.resources ?? []).length > 0)
    .map(({ verbs, apiGroups, resources, resourceNames }) => ({
      verbs,
      apiGroups: apiGroups ?? [],
      resources,
      ...(resourceNames ? { resourceNames } : {}),
    }));
  const nonResourceRules = rules
    .filter((r) => (r.nonResourceURLs ?? []).length > 0)
    .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs }));
  const status = { resourceRules, nonResourceRules, incomplete: false };
  return json(201, {
    kind: 'SelfSubjectRulesReview',
    apiVersion: 'authorization.k8s.io/v1',
    metadata: {},
    spec: review.spec,
    status,
  });
}

async function self(call: Call): Promise<ApiResponse> {
  readTyped<object>(call, 'authentication.v1.SelfSubjectReview');
  const { registry } = call.services;
  return json(201, {
    kind: 'SelfSubjectReview',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { creationTimestamp: registry.now() },
    status: { userInfo: userInfo(call.user) },
  });
}

async function token(call: Call): Promise<ApiResponse> {
  const review = readTyped<TokenReview>(call, 'authentication.v1.TokenReview');
  const audiences = review.spec?.audiences;
  const verified = await call.services.tokens.verify(
    review.spec?.token ?? '',
    audiences && audiences.length > 0 ? audiences : undefined,
  );
  const status = verified
    ? { authenticated: true, user: userInfo(verified.user), audiences: verified.audiences }
    : { authenticated: false, error: 'the token is not valid here' };
  return json(201, {
    kind: 'TokenReview',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: {},
    spec: { audiences: audiences ?? [] },
    status,
  });
}

function userInfo(user: User): object {
  return {
    username: user.username,
    ...(user.uid ? { uid: user.uid } : {}),
    groups: user.groups,
    ...(user.extra ? { extra: user.extra } : {}),
  };
}
