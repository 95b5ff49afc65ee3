"""usage: bucket.py NAME. Makes the bucket in the S3 store that the environment names, if it is not there."""

import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE_S = 60.0
THERE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def main(name: str) -> None:
    """Ends with one sentence where the store cannot be had."""
    endpoint = os.environ["MLFLOW_S3_ENDPOINT_URL"]
    store = boto3.client("s3", endpoint_url=endpoint)
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            store.create_bucket(Bucket=name)
            print(f"made the bucket {name} in {endpoint}")
            return
        except ClientError as error:
            if error.response["Error"]["Code"] in THERE:
                print(f"the bucket {name} is in {endpoint}")
                return
            sys.exit(f"{endpoint} makes no bucket {name}: {error}; check S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY")
        except BotoCoreError as error:
            if time.monotonic() > give_up_s:
                sys.exit(f"{endpoint} does not answer: {error}; check S3_ENDPOINT")
            time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
