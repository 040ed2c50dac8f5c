/*
 * compat.h
 *		What differs between the supported PostgreSQL versions, by feature name.
 *
 * The only file that looks at PG_VERSION_NUM.
 */
#ifndef BEHAVIOR_COMPAT_H
#define BEHAVIOR_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "behavior supports PostgreSQL 15 to 18"
#endif

/* 17 put a backend's virtual transaction id into a struct of its own. */
#if PG_VERSION_NUM >= 170000
#define MY_LXID	(MyProc->vxid.lxid)
#else
#define MY_LXID	(MyProc->lxid)
#endif

/* Index scans that report what they did to EXPLAIN: an argument more. */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, norderbys)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#endif

#include "utils/acl.h"

/* Ownership checks by kind of object became one function in 16. */
#if PG_VERSION_NUM >= 160000
#define database_ownercheck(oid, role)	object_ownercheck(DatabaseRelationId, (oid), (role))
#define relation_ownercheck(oid, role)	object_ownercheck(RelationRelationId, (oid), (role))
#else
#define database_ownercheck(oid, role)	pg_database_ownercheck((oid), (role))
#define relation_ownercheck(oid, role)	pg_class_ownercheck((oid), (role))
#endif

#if PG_VERSION_NUM >= 170000
#define HAVE_TRANSACTION_TIMEOUT
#endif

#endif
